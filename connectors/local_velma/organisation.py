"""The organisation of the local server: its keys, connection limits, monthly hours and credits, and what it refuses for them."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from moderation.budget import hours_to_ms, ms_to_hours
from moderation.endpoints import Endpoint

NOT_PERMITTED = 4003
INSUFFICIENT = 4029

ConnectionLimit: TypeAlias = int | Mapping[str, int | None] | None
"""Connections at once on each endpoint: one number for all, or one by the endpoint's name. None, or no name, is no limit."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A close code and the text that is sent before it (seed pages, 'WebSocket close codes'; service.md for the texts)."""

    code: int
    text: str


WRONG_KEY = Refusal(NOT_PERMITTED, "This request is not permitted.")
TOO_MANY = Refusal(INSUFFICIENT, "Too many concurrent connections.")
NO_HOURS = Refusal(INSUFFICIENT, "Monthly usage limit reached.")
NO_CREDITS = Refusal(INSUFFICIENT, "Insufficient credits.")


class Session(Protocol):
    """What an organisation knows of a connection: its number, its endpoint, and what came in and was analysed so far."""

    number: int
    endpoint: Endpoint
    bytes_received: int
    audio_ms: int

    def end(self, refusal: Refusal) -> None:
        """Refuse it in mid-stream. Any thread may call this."""
        ...


@dataclass(frozen=True, slots=True)
class Seat:
    """A place that a session takes: since when, and with which key, of which only the number is shown."""

    session: Session
    since: datetime
    key_number: int
    key: str = field(repr=False)


@dataclass(slots=True)
class Organisation:
    """Who may connect and how much; all of it may change while the server runs.

    max_connections is by endpoint, total_connections over all (the published pages say both), monthly_hours and credit_hours are
    audio-hours over all endpoints; None is no limit. A lower limit ends no session that is live. A month lasts until `new_month`;
    credit_hours is what there was when it began.
    Keys are numbered from 1 in the order in which they became known: nothing that is shown has more of them than that.
    """

    api_keys: Collection[str] = field(repr=False)
    max_connections: ConnectionLimit = None
    total_connections: int | None = None
    monthly_hours: float | None = None
    credit_hours: float | None = None
    live: Counter[str] = field(default_factory=Counter)
    """Connections by the name of their endpoint."""
    sessions: Counter[str] = field(default_factory=Counter)
    """Connections let in this month, by endpoint."""
    used: Counter[str] = field(default_factory=Counter)
    """Milliseconds of audio analysed this month, by endpoint."""
    seats: dict[int, Seat] = field(default_factory=dict)
    """By the number of the session."""
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for key in self.api_keys:
            self._number(key)

    @property
    def used_ms(self) -> int:
        """Milliseconds of audio analysed this month."""
        return sum(self.used.values())

    def enter(self, key: str | None, session: Session) -> Seat | Refusal:
        """Give a session a place, or say why not. Who has one must `leave`."""
        if key is None or key not in self.api_keys:
            return WRONG_KEY
        if (exhausted := self.exhausted()) is not None:
            return exhausted
        if self._full(session.endpoint.name):
            return TOO_MANY
        seat = Seat(session, datetime.now(UTC), self._number(key), key)
        self.seats[session.number] = seat
        self.live[session.endpoint.name] += 1
        self.sessions[session.endpoint.name] += 1
        return seat

    def leave(self, session: Session) -> None:
        """Give the place back."""
        del self.seats[session.number]
        self.live[session.endpoint.name] -= 1

    def use(self, endpoint: str, audio_ms: int) -> None:
        """Count analysed audio."""
        self.used[endpoint] += audio_ms

    def exhausted(self) -> Refusal | None:
        """Why nothing more is analysed, None while there is something left."""
        if self.credit_hours is not None and self.used_ms >= hours_to_ms(self.credit_hours):
            return NO_CREDITS
        if self.monthly_hours is not None and self.used_ms >= hours_to_ms(self.monthly_hours):
            return NO_HOURS
        return None

    def add_key(self, key: str) -> None:
        """Let new connections in with this key, also where it was revoked before."""
        self.api_keys = {*self.api_keys, key}
        self._number(key)

    def revoke_key(self, key: str) -> None:
        """Let nobody in with this key any more, and end the sessions that came in with it."""
        self.api_keys = {*self.api_keys} - {key}
        for seat in list(self.seats.values()):
            if seat.key == key:
                seat.session.end(WRONG_KEY)

    def new_month(self) -> None:
        """Begin to count anew; what credits were spent stays spent."""
        if self.credit_hours is not None:
            self.credit_hours = max(0.0, self.credit_hours - ms_to_hours(self.used_ms))
        self.used.clear()
        self.sessions.clear()

    def limit_of(self, endpoint: str) -> int | None:
        """The most connections at once on an endpoint; None is no limit."""
        return self.max_connections.get(endpoint) if isinstance(self.max_connections, Mapping) else self.max_connections

    def _full(self, endpoint: str) -> bool:
        limit = self.limit_of(endpoint)
        if limit is not None and self.live[endpoint] >= limit:
            return True
        return self.total_connections is not None and self.live.total() >= self.total_connections

    def _number(self, key: str) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)
