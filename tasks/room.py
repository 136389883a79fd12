"""Room where ended sessions go: nothing starts where the disk might not take what is live, and what is paid for waits in memory."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.spool import Spool
from moderation.errors import ResultsNotWritable, UnreachableError
from moderation.outcomes import Reason, StopCause
from moderation.results import SpooledSession

if TYPE_CHECKING:
    from tasks.admission import Stop

MEBIBYTE = 1024 * 1024
PAUSE_S = 2.0
PATIENCE_S = 300.0
"""How long a paid result is held in memory for a person, or another program, to make room; its place is held, too, so memory is bounded."""
logger = logging.getLogger("soundcheck.spool")


@dataclass(frozen=True, slots=True)
class Room:
    """How much of the spool's disk must be free for a session to start, in bytes."""

    spool: Spool
    min_free_bytes: int

    def full(self) -> str | None:
        """What is wrong and what to do where there is less; None where there is enough, or nobody can tell."""
        free = self.spool.free_bytes()
        if free is None or free >= self.min_free_bytes:
            return None
        return (
            f"the disk of the spool {self.spool} has {free // MEBIBYTE} MiB free, and {-(-self.min_free_bytes // MEBIBYTE)} MiB "
            "(min_free_mb) are kept for what live sessions bring: make room, then run again; nothing that was paid for is lost"
        )


async def keep(spool: Spool, session: SpooledSession, stop: "Stop", sleep: Callable[[float], Awaitable[None]], *, patient: bool) -> None:
    """Spool a session durably. While that fails nothing more starts, and it waits in memory, if it is to be patient.

    Raises ResultsNotWritable or UnreachableError when there was no room for too long.
    """
    waited_s = 0.0
    while True:
        try:
            await spool.put_async(session)
        except (ResultsNotWritable, UnreachableError) as error:
            unwritable = isinstance(error, ResultsNotWritable)
            cause = StopCause.RESULTS_NOT_WRITABLE if unwritable else StopCause.SERVICE_UNREACHABLE
            stop.request(cause, Reason.NOT_REACHED, f"{str(error).rstrip('.')}: make room, or repair it, then run again")
            if not patient or waited_s >= PATIENCE_S:
                raise
            if not waited_s:
                logger.warning("session %s waits in memory for %.0f s at most: %s", session.session_id, PATIENCE_S, error)
        else:
            return
        await sleep(PAUSE_S)
        waited_s += PAUSE_S
