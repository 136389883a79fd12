"""The way into the ledger: who asks when, what is waited for, and what ends the waiting."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from math import inf

import pytest

from connectors.ledger import Ledger
from connectors.spool import Spool
from ledger_facts import MONTH, Clock, claim_of, live, money, set_gate, write_gate
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, Grant, Refusal
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.errors import LeaseLost, UnreachableError
from moderation.limits import ConnectionLimit, Stage
from moderation.outcomes import Reason, StopCause
from tasks.admission import Admission, NotAdmitted, Stop
from tasks.leases import Leases
from ticking import Ticking

HOUR = 3_600_000


class House:
    """A ledger of two slots, a way into it, and sessions that end when they are told to."""

    def __init__(self, ledger: Ledger, clock: Clock, spool: Spool) -> None:
        self.ledger = ledger
        self.clock = clock
        self.month = MONTH
        self.stop = Stop()
        self.ticking = Ticking(clock, sleepers=0)
        self.admission = Admission(
            ledger,
            Leases(ledger, "worker", spool, clock_ms=clock, sleep=self.ticking.sleep),
            self.stop,
            lambda: self.month,
            lambda: 0.5,
            sleep=self.ticking.sleep,
        )
        self.granted: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task] = {}

    def wants(self, number: int, **changes) -> str:
        """A session that asks from now on, and once granted lasts until `end`."""
        claim = claim_of(number, **changes)

        async def session() -> None:
            async with self.admission.slot(claim):
                self.granted.append(claim.session_id)
                await self.ends[claim.session_id].wait()
                await self.ledger.finish(claim.session_id, claim.estimate_ms)

        self.ends[claim.session_id] = asyncio.Event()
        self.tasks[claim.session_id] = asyncio.create_task(session())
        return claim.session_id

    async def end(self, session_id: str) -> None:
        self.ends[session_id].set()
        await self.tasks[session_id]

    async def until_real(self, condition) -> None:
        """Real time alone."""
        for _ in range(2_000):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it never came")

    async def until(self, condition) -> None:
        """Real time for real databases; simulated time for the pauses between questions."""
        for _ in range(2_000):
            if condition():
                return
            await self.ticking.advance(100)
            await asyncio.sleep(0.001)
        raise AssertionError("it never came")


@pytest.fixture
async def house(tmp_path):
    clock = Clock()
    async with Ledger.open(tmp_path / "ledger.db", clock_ms=clock, chance=lambda: 0.5, lease_ms=HOUR) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        await ledger.set_gate("acme", EVERY_ENDPOINT, None)
        built = House(ledger, clock, Spool(tmp_path / "spool"))
        yield built
        for task in built.tasks.values():
            task.cancel()
        with suppress(BaseException):
            await asyncio.gather(*built.tasks.values(), return_exceptions=True)


def questions(monkeypatch) -> list[tuple[Claim, tuple[str, ...]]]:
    """What the ledger is asked from now on: who wants to start, and who has given a slot back."""
    asked, admit = [], Ledger.admit

    async def noted(ledger: Ledger, claim: Claim, closed: tuple[str, ...]) -> Grant | Refusal:
        asked.append((claim, closed))
        return await admit(ledger, claim, closed)

    monkeypatch.setattr(Ledger, "admit", noted)
    return asked


async def test_slots_are_given_in_the_order_of_asking_and_at_once_when_one_is_free(house):
    ids = [house.wants(number) for number in range(5)]
    await house.until(lambda: len(house.granted) == 2 and house.admission.refusals.get("music"))
    assert house.admission.refusals["music"].denial is Denial.FULL
    at_ms = house.clock.ms
    await house.end(ids[1])
    await house.until_real(lambda: len(house.granted) == 3)
    assert house.granted == ids[:3]
    assert house.clock.ms == at_ms, "nobody waited for the next question"
    for number in (0, 2, 3, 4):
        await house.until(lambda number=number: ids[number] in house.granted)
        await house.end(ids[number])
    assert house.granted == ids
    assert not house.admission.refusals


async def test_whom_a_first_result_lets_start_asks_at_once(house):
    await write_gate(house.ledger, "acme", "music", limit=ConnectionLimit())
    ids = [house.wants(number) for number in range(3)]
    await house.until(lambda: house.granted and house.admission.refusals.get("music"))
    at_ms = house.clock.ms
    await house.admission.note_result(claim_of(0))
    await house.until_real(lambda: len(house.granted) == 2)
    assert (house.granted, house.clock.ms) == (ids[:2], at_ms), "nobody waited for the next question"


@pytest.mark.parametrize("limit", [ConnectionLimit(), ConnectionLimit(Stage.GROWING, allowed=1000)])
async def test_with_a_first_result_that_others_wait_for_those_are_told_that_are_held_back(house, monkeypatch, limit):
    await write_gate(house.ledger, "acme", "music", limit=limit)
    house.wants(0)
    await house.until(lambda: house.granted)
    told, note_result = [], Ledger.note_result

    async def noted(ledger: Ledger, *results) -> None:
        told.append(results)
        await note_result(ledger, *results)

    monkeypatch.setattr(Ledger, "note_result", noted)
    house.admission.held_back.add("held back")
    await house.admission.note_result(claim_of(0))
    house.admission.give_back(claim_of(0))
    await house.admission.note_result(claim_of(1))
    beside = ("held back",) if limit.stage is Stage.PREFLIGHT else ()
    assert told == [(house.granted[0], beside, ()), (claim_of(1).session_id, (), (house.granted[0],))]


@pytest.mark.parametrize(("workers", "asked_in_30_s"), [(("worker", "worker"), 20), (("worker", "another"), 86), ((), 86)])
async def test_who_has_every_slot_itself_asks_less_often(house, monkeypatch, workers, asked_in_30_s):
    await set_gate(house.ledger, "acme", "music", len(workers))
    for number, worker in enumerate(workers):
        if worker == "worker":
            house.wants(number)
        else:
            await house.ledger.admit(claim_of(number, worker=worker))
    await house.until(lambda: len(house.granted) == workers.count("worker"))
    house.wants(2)
    await house.until(lambda: house.admission.refusals.get("music"))
    asked = questions(monkeypatch)
    house.ticking.expected = 1
    await house.ticking.advance(30_000)
    house.ticking.expected = 0
    assert len(asked) == pytest.approx(asked_in_30_s, abs=2)


async def test_a_slot_is_given_back_before_its_session_is_booked(house):
    ids = [house.wants(number) for number in range(4)]
    await house.until(lambda: len(house.granted) == 2 and house.admission.refusals.get("music"))
    at_ms = house.clock.ms
    house.admission.give_back(claim_of(0))
    await house.until_real(lambda: len(house.granted) == 3)
    assert (house.granted, house.clock.ms) == (ids[:3], at_ms), "nobody waited for the next question"
    assert await live(house.ledger) == 2
    assert await house.ledger.admit(claim_of(9)) == Refusal(Denial.FULL, live=2)
    await house.end(ids[0])
    await house.until(lambda: house.admission.refusals.get("music"))
    assert house.granted == ids[:3], "its slot is not given back twice"
    await house.end(ids[1])
    await house.until(lambda: house.granted == ids)


async def test_a_slot_of_the_organisation_goes_to_the_other_endpoint_where_nobody_waits_for_it(house):
    await house.ledger.set_gate("acme", EVERY_ENDPOINT, 2)
    await set_gate(house.ledger, "acme", "ai_music", 2)
    ids = [house.wants(0), house.wants(1)]
    await house.until(lambda: len(house.granted) == 2)
    ids.append(house.wants(2, endpoint="ai_music"))
    await house.until(lambda: house.admission.refusals.get("ai_music"))
    at_ms = house.clock.ms
    await house.end(ids[0])
    await house.until_real(lambda: len(house.granted) == 3)
    assert (house.granted, house.clock.ms) == (ids, at_ms), "nobody waited for the next question"


async def test_sessions_that_take_turns_ask_the_ledger_once_each(house, monkeypatch):
    ids = [house.wants(number) for number in range(8)]
    await house.until(lambda: len(house.granted) == 2 and house.admission.refusals.get("music"))
    asked = questions(monkeypatch)
    for number in range(4):
        await house.admission.note_result(claim_of(number))
        house.admission.give_back(claim_of(number))
        await house.until_real(lambda number=number: len(house.granted) == number + 3)
        await house.end(ids[number])
    assert [(claim.session_id, closed) for claim, closed in asked] == [(ids[number + 2], (ids[number],)) for number in range(4)]


async def test_of_a_cap_something_may_come_back_until_the_last_session_is_booked(house):
    await house.ledger.set_cap("acme", "music", 1_500)
    first, second = house.wants(1, estimate_ms=1_000), house.wants(2, estimate_ms=1_000)
    await house.until(lambda: (waits := house.admission.refusals.get("music")) and waits.denial is Denial.BUDGET)
    house.admission.give_back(claim_of(1))
    await house.ticking.advance(5_000)
    assert not house.tasks[second].done()
    await house.ledger.set_cap("acme", "music", 2_000)
    await house.end(first)
    await house.until(lambda: house.granted == [first, second])


async def test_while_a_breaker_is_open_the_shortest_session_goes_as_its_probe(house):
    opened = Breaker(state=BreakerState.OPEN, opened_by=OpenedBy.SERVICE, opened_ms=house.clock.ms, until_ms=house.clock.ms + 30_000)
    await write_gate(house.ledger, "acme", "music", breaker=opened)
    ids = [house.wants(number, estimate_ms=length) for number, length in enumerate((9_000, 5_000, 7_000))]
    await house.until(lambda: house.admission.refusals.get("music"))
    assert house.admission.refusals["music"].denial is Denial.BREAKER
    began = house.clock.ms
    await house.until(lambda: house.granted)
    assert house.granted == [ids[1]]
    assert house.clock.ms - began >= 28_000


async def test_a_pause_is_waited_for_until_an_operator_ends_it(house):
    await house.ledger.pause("acme")
    session = house.wants(1)
    await house.until(lambda: house.admission.refusals.get("music"))
    await house.ticking.advance(HOUR // 2)
    assert not house.granted
    assert house.admission.refusals["music"].denial is Denial.PAUSED
    await house.ledger.resume("acme")
    await house.until(lambda: house.granted == [session])


@pytest.mark.fault(54)
async def test_who_waits_over_the_end_of_a_month_is_paid_for_from_the_next(house):
    ids = [house.wants(number) for number in range(3)]
    await house.until(lambda: len(house.granted) == 2)
    house.month = "2026-12"
    await house.end(ids[0])
    await house.until(lambda: len(house.granted) == 3)
    months = {session_id: (await house.ledger.session(session_id)).month for session_id in ids}
    assert months == {ids[0]: MONTH, ids[1]: MONTH, ids[2]: "2026-12"}


async def test_a_cap_that_our_own_reservations_fill_is_waited_for(house):
    await house.ledger.set_cap("acme", EVERY_ENDPOINT, 1_500)
    first, second = house.wants(1, estimate_ms=1_000), house.wants(2, estimate_ms=500, endpoint="music")
    third = house.wants(3, estimate_ms=200)
    await house.until(lambda: house.granted == [first, second])
    house.ends[second].set()
    await house.tasks[second]
    await house.until(lambda: (waits := house.admission.refusals.get("music")) and waits.denial is Denial.BUDGET)
    house.ends[first].set()
    with pytest.raises(NotAdmitted) as refused:
        await house.tasks[third]
    assert refused.value.denial is Denial.BUDGET, "nothing of ours is live any more that could give something back"


async def test_a_stopped_run_lets_nobody_in_any_more(house):
    ids = [house.wants(number) for number in range(4)]
    await house.until(lambda: len(house.granted) == 2)
    house.stop.request(StopCause.TERMINATED, Reason.NOT_REACHED, "stopped")
    for waiting in ids[2:]:
        with pytest.raises(NotAdmitted) as refused:
            await house.tasks[waiting]
        assert refused.value.denial is None
    for live_one in ids[:2]:
        await house.end(live_one)
    assert await live(house.ledger) == 0


async def test_sessions_are_dropped_as_not_admitted_once_a_stopped_run_has_no_more_patience(house):
    ids = [house.wants(number) for number in range(2)]
    await house.until(lambda: len(house.granted) == 2)
    house.stop.request(StopCause.TERMINATED, Reason.NOT_REACHED, "stopped")
    house.admission.drop_all()
    for session_id in ids:
        with pytest.raises(NotAdmitted):
            await house.tasks[session_id]


async def test_a_breaker_that_has_given_up_stops_the_run_and_says_why(house):
    now = house.clock.ms
    given_up = Breaker(state=BreakerState.OPEN, opened_by=OpenedBy.PREFLIGHT, opened_ms=now, until_ms=now, bad_probes=2)
    await write_gate(house.ledger, "acme", "music", breaker=given_up)
    session = house.wants(1)
    with pytest.raises(NotAdmitted):
        await house.tasks[session]
    assert house.stop.cause is StopCause.ACCESS_DENIED
    assert house.stop.reason is Reason.DEFERRED_KEY
    assert "key" in house.stop.message


class Deaf:
    """A ledger that goes away as it is asked: before it has granted the session, or after."""

    def __init__(self, ledger: Ledger, *, heard: bool, times: float = 1) -> None:
        self.ledger = ledger
        self.times = times
        self.heard = heard
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.ledger, name)

    async def admit(self, claim: Claim, closed: Collection[str]) -> Grant | Refusal:
        self.asked += 1
        if self.asked <= self.times:
            if self.heard:
                await self.ledger.admit(claim, closed)
            raise UnreachableError("the connection is closed")
        return await self.ledger.admit(claim, closed)


async def test_a_question_that_was_not_heard_is_asked_again(house):
    house.admission.ledger = ledger = Deaf(house.ledger, heard=False)
    session = house.wants(1)
    await house.until(lambda: house.granted == [session])
    assert ledger.asked == 2


async def test_a_ledger_that_answers_everything_but_this_is_given_up_after_half_a_lease(house):
    house.admission.ledger = Deaf(house.ledger, heard=False, times=inf)
    house.admission.outages.lease_ms = 8_000
    session = house.wants(1)
    await house.until(house.tasks[session].done)
    with pytest.raises(UnreachableError):
        await house.tasks[session]


async def test_a_session_that_was_granted_without_an_answer_is_taken_back(house):
    house.admission.ledger = ledger = Deaf(house.ledger, heard=True)
    with pytest.raises(LeaseLost, match="granted while the ledger went away"):
        await house.tasks[house.wants(1)]
    assert ledger.asked == 1
    assert await live(house.ledger) == 0
    assert await money(house.ledger) == (0, 0, 0)


def test_the_first_reason_to_stop_stays():
    stop = Stop()
    stop.request(StopCause.CREDITS_EXHAUSTED, Reason.DEFERRED_QUOTA, "no credits")
    stop.request(StopCause.TERMINATED, Reason.NOT_REACHED, "a signal")
    assert (stop.cause, stop.reason, stop.message) == (StopCause.CREDITS_EXHAUSTED, Reason.DEFERRED_QUOTA, "no credits")
