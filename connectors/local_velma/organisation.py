"""The organisation of the local server: its keys, connection limit, monthly hours and credits, and what it refuses for them."""

from collections import Counter
from dataclasses import dataclass, field

MS_PER_HOUR = 3_600_000
NOT_PERMITTED = 4003
INSUFFICIENT = 4029


@dataclass(frozen=True, slots=True)
class Refusal:
    """A close code and the text that is sent before it (seed pages, 'WebSocket close codes'; service.md for the texts)."""

    code: int
    text: str


WRONG_KEY = Refusal(NOT_PERMITTED, "This request is not permitted.")
TOO_MANY = Refusal(INSUFFICIENT, "Too many concurrent connections.")
NO_HOURS = Refusal(INSUFFICIENT, "Monthly usage limit reached.")
NO_CREDITS = Refusal(INSUFFICIENT, "Insufficient credits.")


@dataclass(slots=True)
class Organisation:
    """Who may connect and how much: api_keys, connections per endpoint, audio-hours per month and audio-hours of credit; None is no limit.

    Hours are counted over both endpoints from the start of the server, which takes the place of the month.
    """

    api_keys: frozenset[str] = field(repr=False)
    max_connections: int | None = None
    monthly_hours: float | None = None
    credit_hours: float | None = None
    live: Counter[str] = field(default_factory=Counter)
    used_ms: int = 0

    def enter(self, key: str | None, endpoint: str) -> Refusal | None:
        """Take a connection, or say why not. A taken one must `leave`."""
        if key not in self.api_keys:
            return WRONG_KEY
        if (exhausted := self.exhausted()) is not None:
            return exhausted
        if self.max_connections is not None and self.live[endpoint] >= self.max_connections:
            return TOO_MANY
        self.live[endpoint] += 1
        return None

    def leave(self, endpoint: str) -> None:
        """Give the connection back."""
        self.live[endpoint] -= 1

    def use(self, audio_ms: int) -> None:
        """Count analysed audio."""
        self.used_ms += audio_ms

    def exhausted(self) -> Refusal | None:
        """Why nothing more is analysed, None while there is something left."""
        if self.credit_hours is not None and self.used_ms >= self.credit_hours * MS_PER_HOUR:
            return NO_CREDITS
        if self.monthly_hours is not None and self.used_ms >= self.monthly_hours * MS_PER_HOUR:
            return NO_HOURS
        return None
