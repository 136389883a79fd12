"""The far side: an organisation at the service with keys, a true limit that others share, credits and hours, outages and its own words."""

from dataclasses import dataclass, field

from admission_simulator.clock import Clock
from moderation.errors import Phase, SessionError
from moderation.refusals import Cause, classify

TEXTS = {
    "key": "This request is not permitted.",
    "credits": "Insufficient credits.",
    "hours": "Monthly usage limit reached.",
    "full": "Too many concurrent connections.",
    "service": "Internal server error",
}
CODES = {"key": 4003, "credits": 4029, "hours": 4029, "service": 1011, "decode": 4002, "ended": 1000}
STATUSES = {"key": 403, "full": 429, "service": 503, "503": 503}
RETRY_AFTER_S = {"full": 5.0, "503": 30.0}
OF_THE_OBJECT = frozenset({"decode", "ended"})
"""What is the fault of an object, or of one session of it: nobody else's trouble hides it."""


@dataclass(slots=True)
class Seat:
    """A session that the service holds, and how many milliseconds of audio it takes in a millisecond."""

    endpoint: str
    key: str
    speed: float


@dataclass(slots=True)
class Service:
    """All of it may change while it runs. limits and others are by endpoint, total over all; None is no limit.

    telling: whether codes come with a text. full_as is the code, or the HTTP status, that a full organisation is told. hidden is the chance
    that the words of a refusal after the upgrade are lost with the connection (1006), early that a refusal comes as HTTP status before it,
    drop_rate that a session breaks on its way, flaky_rate that a start fails for no reason.
    """

    clock: Clock
    keys: set[str]
    limits: dict[str, int]
    others: dict[str, int]
    total: int | None = None
    credits_ms: int | None = None
    hours_ms: int | None = None
    outage: str | None = None
    telling: bool = True
    full_as: int = 4029
    hidden: float = 0.0
    early: float = 0.0
    drop_rate: float = 0.0
    flaky_rate: float = 0.0
    longest_first_ms: int = 2_000
    seats: dict[str, Seat] = field(default_factory=dict)
    used_ms: float = 0.0
    _counted_at: int = 0

    def usable(self, endpoint: str) -> int:
        """How many sessions of ours the service takes at an endpoint now, live ones included."""
        places = self.limits[endpoint] - self.others[endpoint]
        if self.total is not None:
            elsewhere = sum(seat.endpoint != endpoint for seat in self.seats.values())
            places = min(places, self.total - elsewhere)
        return places

    def enter(self, session_id: str, seat: Seat) -> str | None:
        """Give a session a place, or name what it is refused for."""
        self.count()
        if (why := self.shut_for(seat.key)) is not None:
            return why
        if self.clock.chance() < self.flaky_rate:
            return "service"
        if sum(other.endpoint == seat.endpoint for other in self.seats.values()) >= self.usable(seat.endpoint):
            return "full"
        self.seats[session_id] = seat
        return None

    def shut_for(self, key: str) -> str | None:
        """What everybody with this key is refused for."""
        if self.outage is not None:
            return self.outage
        return self.exhausted() if key in self.keys else "key"

    def leave(self, session_id: str) -> None:
        """The connection is closed, by whom ever."""
        self.count()
        self.seats.pop(session_id, None)

    def count(self) -> None:
        """Count the audio that came in since the last time."""
        if self.seats:
            self.used_ms += sum(seat.speed for seat in self.seats.values()) * (self.clock.ms - self._counted_at)
        self._counted_at = self.clock.ms

    def exhausted(self) -> str | None:
        """What is used up."""
        if self.credits_ms is not None and self.used_ms >= self.credits_ms:
            return "credits"
        return "hours" if self.hours_ms is not None and self.used_ms >= self.hours_ms else None

    def exhausted_in_ms(self) -> int | None:
        """When something will be used up, as things stand; None if nothing points there."""
        caps = [cap_ms for cap_ms in (self.credits_ms, self.hours_ms) if cap_ms is not None]
        if not caps or not self.seats:
            return None
        return max(1, int((min(caps) - self.used_ms) / sum(seat.speed for seat in self.seats.values())) + 1)

    def refusal(self, what: str) -> SessionError:
        """How a client is refused: before the upgrade, or soon after it."""
        if what == "unreachable":
            return SessionError("no connection", phase=Phase.CONNECTING)
        named = self.telling or what in {"key", "service"}
        early = self.full_as == STATUSES["full"] if what == "full" else named and self.clock.chance() < self.early
        if not early and what != "503":
            return self.words(what, Phase.ADMITTED)
        status, text = STATUSES.get(what, 429), TEXTS.get(what) if self.telling else None
        return SessionError("refused", phase=Phase.CONNECTING, http_status=status, text=text, retry_after=RETRY_AFTER_S.get(what))

    def words(self, what: str, phase: Phase) -> SessionError:
        """What a client hears when its connection is ended."""
        if what == "drop" or (what not in OF_THE_OBJECT and self.clock.chance() < self.hidden):
            return SessionError("broken", phase=phase, close_code=1006)
        code = CODES.get(what, self.full_as if self.full_as in {4003, 4029} else 4029)
        return SessionError("closed", phase=phase, close_code=code, text=TEXTS.get(what) if self.telling else None)


_CAUSES: dict[tuple[object, ...], Cause] = {}


def cause_of(error: SessionError) -> Cause:
    """The cause of an error, worked out once for each."""
    facts = (error.phase, error.http_status, error.close_code, error.text)
    if facts not in _CAUSES:
        _CAUSES[facts] = classify(error)
    return _CAUSES[facts]
