"""What a session has reserved of its budgets, and how that grows where it outlives its estimate."""

from dataclasses import dataclass

from connectors.ledger import Ledger
from moderation.errors import LeaseLost, SoundcheckError
from tasks.outages import Outages
from tasks.own_causes import BudgetReached, LedgerFailed

EXTENSION_MS = 60_000
"""The least that a session reserves anew when it outlives its estimate."""
LAST_EXTENSION_MS = 1_000
"""The same where a cap holds no more than that: what was paid for is not thrown away for the want of a second."""


@dataclass(slots=True)
class Reservation:
    """The reservation of one session that streams, in milliseconds of audio."""

    ledger: Ledger
    outages: Outages
    session_id: str
    reserved_ms: int

    async def cover(self, sent_ms: int) -> None:
        """Reserve more where so much has gone out, before more does. Raises BudgetReached, LeaseLost and LedgerFailed."""
        while sent_ms >= self.reserved_ms:
            self.reserved_ms += await self._more()

    async def _more(self) -> int:
        """As much as the caps hold."""
        more_ms = max(EXTENSION_MS, self.reserved_ms // 4)
        while not await self._extend(more_ms):
            more_ms //= 2
            if more_ms < LAST_EXTENSION_MS:
                raise BudgetReached("the month's cap does not hold the rest of this object: raise it, or wait for the next month")
        return more_ms

    async def _extend(self, more_ms: int) -> bool:
        try:
            return await self.outages.outlast(lambda: self.ledger.extend(self.session_id, more_ms))
        except LeaseLost:
            raise
        except SoundcheckError as error:
            raise LedgerFailed(error) from error
