"""What the local server's organisation lets in, and what it says to the others."""

import itertools
from dataclasses import dataclass, field

import pytest

from connectors.local_velma.organisation import NO_CREDITS, NO_HOURS, TOO_MANY, WRONG_KEY, Organisation, Refusal, Seat
from moderation.endpoints import ENDPOINTS, Endpoint

HOUR = 3_600_000
numbers = itertools.count(1)


@dataclass
class Session:
    """A connection, and what it was told to end with."""

    endpoint: Endpoint
    number: int = field(default_factory=lambda: next(numbers))
    bytes_received: int = 0
    audio_ms: int = 0
    told: list[Refusal] = field(default_factory=list)

    def end(self, refusal: Refusal) -> None:
        self.told.append(refusal)


def acme(**limits) -> Organisation:
    return Organisation(("good", "other"), **limits)


def a_session(endpoint: str = "music") -> Session:
    return Session(ENDPOINTS[endpoint])


def enter(organisation: Organisation, key: str | None = "good", endpoint: str = "music") -> Seat | Refusal:
    return organisation.enter(key, a_session(endpoint))


def outcomes(organisation: Organisation, times: int, endpoint: str = "music") -> list[Refusal | None]:
    entered = [enter(organisation, endpoint=endpoint) for _ in range(times)]
    return [one if isinstance(one, Refusal) else None for one in entered]


@pytest.mark.parametrize("key", [None, "", "bad", "Good", "good "])
def test_only_its_own_keys(key):
    organisation = acme()
    assert enter(organisation, key) is WRONG_KEY
    assert not organisation.live["music"]
    assert enter(organisation, "good").key_number == 1
    assert enter(organisation, "other").key_number == 2


def test_no_limits_by_default():
    organisation = acme()
    organisation.use("music", 10**9)
    assert outcomes(organisation, 100) == [None] * 100


def test_one_limit_for_each_endpoint():
    organisation = acme(max_connections=2)
    assert outcomes(organisation, 3) == [None, None, TOO_MANY]
    assert outcomes(organisation, 1, "ai_music") == [None]
    assert organisation.live == {"music": 2, "ai_music": 1}


def test_a_limit_by_endpoint():
    organisation = acme(max_connections={"music": 1})
    assert outcomes(organisation, 2) == [None, TOO_MANY]
    assert outcomes(organisation, 5, "ai_music") == [None] * 5
    assert (organisation.limit_of("music"), organisation.limit_of("ai_music")) == (1, None)


def test_a_limit_over_all_endpoints():
    organisation = acme(max_connections=2, total_connections=3)
    assert outcomes(organisation, 2) == [None, None]
    assert outcomes(organisation, 2, "ai_music") == [None, TOO_MANY]


def test_a_refused_connection_takes_no_place():
    organisation, first = acme(max_connections=1), a_session()
    organisation.enter("good", first)
    assert enter(organisation) is TOO_MANY
    organisation.leave(first)
    assert outcomes(organisation, 2) == [None, TOO_MANY]


def test_a_lower_limit_ends_nothing():
    organisation, sessions = acme(), [a_session() for _ in range(3)]
    for session in sessions:
        organisation.enter("good", session)
    organisation.max_connections = 1
    assert enter(organisation) is TOO_MANY
    assert (organisation.live["music"], [session.told for session in sessions]) == (3, [[], [], []])


@pytest.mark.parametrize(("limits", "refusal"), [({"credit_hours": 1.0}, NO_CREDITS), ({"monthly_hours": 1.0}, NO_HOURS)])
def test_hours_are_used_up_over_all_endpoints(limits, refusal):
    organisation = acme(**limits)
    organisation.use("music", HOUR // 2)
    organisation.use("ai_music", HOUR // 2 - 1)
    assert organisation.exhausted() is None
    assert outcomes(organisation, 1) == [None]
    organisation.use("music", 1)
    assert organisation.exhausted() is refusal
    assert enter(organisation, endpoint="ai_music") is refusal


def test_a_new_month_has_hours_again_but_no_more_credits():
    organisation = acme(monthly_hours=1, credit_hours=1.5)
    organisation.use("music", HOUR)
    assert enter(organisation) is NO_HOURS
    organisation.new_month()
    assert (organisation.used_ms, organisation.exhausted()) == (0, None)
    organisation.use("music", HOUR // 2)
    assert enter(organisation) is NO_CREDITS
    organisation.new_month()
    assert enter(organisation) is NO_CREDITS


def test_nothing_left_from_the_start():
    assert enter(acme(credit_hours=0)) is NO_CREDITS
    assert enter(acme(monthly_hours=0)) is NO_HOURS


def test_a_wrong_key_learns_nothing_about_limits():
    assert enter(acme(max_connections=0, credit_hours=0), "bad") is WRONG_KEY


def test_limits_may_change_while_it_runs():
    organisation = acme(credit_hours=0)
    organisation.credit_hours = 1
    assert outcomes(organisation, 1) == [None]


def test_usage_by_endpoint():
    organisation = acme()
    for endpoint in ("music", "music", "ai_music"):
        enter(organisation, endpoint=endpoint)
    organisation.use("music", 192)
    organisation.use("music", 192)
    organisation.use("ai_music", 4000)
    assert organisation.sessions == {"music": 2, "ai_music": 1}
    assert organisation.used == {"music": 384, "ai_music": 4000}
    assert organisation.used_ms == 4384


def test_a_revoked_key_ends_its_sessions_and_no_others():
    organisation, mine, others = acme(), a_session(), a_session()
    organisation.enter("good", mine)
    organisation.enter("other", others)
    organisation.revoke_key("good")
    assert (mine.told, others.told) == ([WRONG_KEY], [])
    assert enter(organisation, "good") is WRONG_KEY
    assert enter(organisation, "other").key_number == 2


def test_a_session_that_left_is_not_ended():
    organisation, session = acme(), a_session()
    organisation.enter("good", session)
    organisation.leave(session)
    organisation.revoke_key("good")
    assert session.told == []


def test_keys_come_and_come_back_under_their_numbers():
    organisation = acme()
    organisation.add_key("third")
    assert enter(organisation, "third").key_number == 3
    organisation.revoke_key("good")
    organisation.add_key("good")
    assert enter(organisation, "good").key_number == 1


def test_codes_and_texts_of_the_seed_pages():
    assert (WRONG_KEY.code, WRONG_KEY.text) == (4003, "This request is not permitted.")
    assert {refusal.code for refusal in (TOO_MANY, NO_HOURS, NO_CREDITS)} == {4029}
    assert NO_CREDITS.text == "Insufficient credits."
    assert NO_HOURS.text == "Monthly usage limit reached."


def test_keys_are_not_shown():
    organisation = acme(max_connections=3)
    seat = enter(organisation, "good")
    assert "good" not in repr(organisation)
    assert "good" not in repr(seat)
