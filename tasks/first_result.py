"""When the ledger hears of a session's first result: at once where others wait for it, else with the session's end if that comes soon."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from moderation.errors import SoundcheckError

HELD_BACK_S = 0.25
"""How long a first result that nothing hangs on waits to be noted: the booking of a session that has ended by then says the same."""
logger = logging.getLogger("soundcheck.stream")


class FirstResult:
    """The first result of one session. note lets the ledger know of it, sleep waits for so many seconds."""

    def __init__(self, session_id: str, note: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._session_id = session_id
        self._note = note
        self._sleep = sleep
        self._telling: asyncio.Task[None] | None = None
        self._is_held_back = False

    def came(self, *, awaited: bool) -> None:
        """Tell it while the session goes on, at once where others may start for it."""
        self._is_held_back = not awaited
        self._telling = asyncio.create_task(self._tell())

    async def told(self) -> None:
        """Return once the ledger has heard of it, if it came: it is held back no longer."""
        if self._take_back():
            await self._tell()
        elif self._telling is not None:
            await self._telling

    async def settled(self) -> None:
        """Return once nothing is told any more: what is still held back is left to the session's end."""
        if not self._take_back() and self._telling is not None:
            await self._telling

    def _take_back(self) -> bool:
        """Whether it was still held back: then nobody tells it any more."""
        if self._telling is None or not self._is_held_back:
            return False
        self._is_held_back = False
        self._telling.cancel()
        self._telling = None
        return True

    async def _tell(self) -> None:
        if self._is_held_back:
            await self._sleep(HELD_BACK_S)
            self._is_held_back = False
        try:
            await self._note()
        except SoundcheckError as error:  # the booking of its session says the same again
            logger.warning("session %s: its first result is not noted yet: %s", self._session_id, error)
