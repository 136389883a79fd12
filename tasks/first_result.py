"""When the ledger hears of a session's first result: at once where others wait for it, else with the session's end if that comes soon."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from moderation.errors import SoundcheckError

HELD_BACK_S = 0.25
"""How long a first result that nothing hangs on waits to be noted: the booking of a session that has ended by then says the same."""
logger = logging.getLogger("soundcheck.stream")


class FirstResult:
    """The first result of one session. note lets the ledger know of it, sleep waits for so many seconds.

    held_back has the sessions of this process whose first result is held back.
    """

    def __init__(
        self, session_id: str, note: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]], held_back: set[str]
    ) -> None:
        self._session_id = session_id
        self._note = note
        self._sleep = sleep
        self._held_back = held_back
        self._telling: asyncio.Task[None] | None = None

    def came(self, *, awaited: bool) -> None:
        """Tell it while the session goes on, at once where others may start for it."""
        if not awaited:
            self._held_back.add(self._session_id)
        self._telling = asyncio.create_task(self._tell())

    async def told(self) -> None:
        """Return once the ledger has heard of it, if it came: it is held back no longer."""
        if self._withhold():
            await self._tell()
        elif self._telling is not None:
            await self._telling

    async def settled(self) -> None:
        """Return once nothing is told any more: what is still held back is left to the session's end."""
        if not self._withhold() and self._telling is not None:
            await self._telling

    def _withhold(self) -> bool:
        """Whether it was still held back: then nobody tells it any more."""
        if self._telling is None or self._session_id not in self._held_back:
            return False
        self._held_back.discard(self._session_id)
        self._telling.cancel()
        self._telling = None
        return True

    async def _tell(self) -> None:
        if self._session_id in self._held_back:
            await self._sleep(HELD_BACK_S)
            self._held_back.discard(self._session_id)
        try:
            await self._note()
        except SoundcheckError as error:  # the booking of its session says the same again
            logger.warning("session %s: its first result is not noted yet: %s", self._session_id, error)
