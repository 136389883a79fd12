"""The slots that sessions of this process have: how many, which of them are given back already, and whether they are all that there are."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from moderation.admission import Claim


class Taken(NamedTuple):
    """So many slots are this process's, at an endpoint and in all."""

    here: int
    whole: int


class OwnSlots:
    """Which slots are ours. clock_ms is that of the leases."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._live: Counter[str] = Counter()
        self._closed: dict[str, str] = {}
        self._all: dict[str, tuple[Taken, int]] = {}

    def take(self, claim: Claim) -> None:
        """A session begins."""
        self._live[claim.endpoint] += 1

    def give_back(self, claim: Claim) -> None:
        """Its connection has closed: it has no slot any more, though it is not booked yet."""
        self._closed[claim.session_id] = claim.endpoint
        self._live[claim.endpoint] -= 1

    def end(self, claim: Claim) -> None:
        """It is booked, and has given back its slot now or before."""
        if self._closed.pop(claim.session_id, None) is None:
            self._live[claim.endpoint] -= 1
            self.may_be_more(claim.endpoint)  # its end may have told the ledger of a higher limit

    @property
    def given_back(self) -> tuple[str, ...]:
        """The sessions that have given their slots back, and are not booked yet."""
        return tuple(self._closed)

    def has_sessions(self, endpoint: str) -> bool:
        """Whether a session of an endpoint is yet to be booked."""
        return self._live[endpoint] > 0 or endpoint in self._closed.values()

    def taken(self, endpoint: str) -> Taken:
        """How many there are now."""
        return Taken(self._live[endpoint], self._live.total())

    def are_all(self, endpoint: str, taken: Taken, seconds: float) -> None:
        """The ledger has no other slot at an endpoint while we have so many: for as long it need not be asked, unless one of ours ends."""
        self._all[endpoint] = taken, self._clock_ms() + round(1000 * seconds)

    def may_be_more(self, endpoint: str) -> None:
        """The ledger has heard something that may let more start there."""
        self._all.pop(endpoint, None)

    def all_for_s(self, endpoint: str) -> float:
        """Seconds for which the ledger need not be asked, as ours are all the slots that there are; 0 where it must be."""
        known, until_ms = self._all.get(endpoint, (None, 0))
        now = self.taken(endpoint)
        if known is None or now.here < known.here or now.whole < known.whole:
            return 0.0
        return max(0.0, (until_ms - self._clock_ms()) / 1000)
