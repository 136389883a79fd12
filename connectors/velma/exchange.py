"""One session on the wire: two tasks, always. One sends, one receives.

The receiver decides what a session was worth; the sender only ever says that it is through (design.md section 4).
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from connectors.velma.chunks import SourceFailure, whole_frames
from connectors.velma.key import ApiKey
from connectors.velma.settings import VelmaSettings
from moderation.pacing import AckWindow, Watchdog, gathering_s
from moderation.session import ClientSession, State

BUFFER_POLL_S = 0.1
"""How often a write buffer is looked at that keeps a chunk from going beyond the window: it tells nobody when it is empty."""

FRESH_SHARE = 0.01
"""Of the progress deadline: so early it may strike, for that it need not be moved with every message."""
LOW_WATER_BYTES = 16 * 1024
"""So much may gather, some 150 results: more than that wakes the loop."""
WAITED_S = 0.0005
"""What takes longer was waited for; a message that is there already takes a tenth of that."""
HEARD = frozenset({State.DONE, State.BROKEN})


class Exchange:
    """The sender and the receiver of one session, and what they tell each other."""

    def __init__(self, connection: ClientConnection, session: ClientSession, settings: VelmaSettings, key: ApiKey) -> None:
        self._connection = connection
        self._socket = connection.transport.get_extra_info("socket")
        self._session = session
        self._settings = settings
        self._key = key
        self._clock = asyncio.get_running_loop().time
        rate = session.parameters.bytes_per_second
        self._window = AckWindow(limit_ms=settings.window_ms, limit_bytes=settings.window_bytes, bytes_per_second=rate)
        self._watchdog = Watchdog(settings.deadlines)
        self._deadline: asyncio.Timeout | None = None
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._stale_at = 0.0
        self._source_failure: Exception | None = None
        self._cautious = self._has_result = False
        self._on_result: Callable[[], None] = lambda: None

    async def run(
        self, audio: AsyncIterator[bytes], chunk_bytes: int, *, cautious: bool = False, on_result: Callable[[], None] = lambda: None
    ) -> None:
        """Send and receive until the session's verdict is known, or a deadline has passed. Raises what reading `audio` raised.

        A cautious one listens for a refusal after its first message; on_result is called with the first item.
        """
        self._cautious, self._on_result = cautious, on_result
        self._watchdog.touch(self._clock())
        self._window.start(self._clock())
        sender: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as self._deadline:
                self._rearm()
                sender = asyncio.create_task(self._send(audio, chunk_bytes))
                await self._receive()
        except TimeoutError:
            if not self._session.over and self._source_failure is None:
                self._session.stalled()
        finally:
            self._deadline = None
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
        if self._source_failure is not None and not self._session.over:
            raise self._source_failure

    def _rearm(self) -> None:
        """Move the deadline to where it belongs now: at once where the source has failed."""
        if self._deadline is not None and not self._deadline.expired():
            now = self._clock()
            self._deadline.reschedule(now + (self._watchdog.left_s(now) if self._source_failure is None else 0.0))

    def _moved(self) -> None:
        """Note a sign of life: one that comes right after another changes nothing, and costs nearly as little."""
        now = self._clock()
        if now >= self._stale_at:
            self._stale_at = now + FRESH_SHARE * self._settings.deadlines.progress_s
            self._watchdog.touch(now)
            self._rearm()

    async def _receive(self) -> None:
        """Read until done, a broken protocol or the close: after an error message a few seconds are left for the close."""
        with suppress(ConnectionClosed):
            session, connection, redact = self._session, self._connection, self._key.redact_message
            while session.state not in HEARD:
                asked_at = self._clock()
                message = await connection.recv()
                waited = self._clock() - asked_at > WAITED_S
                session.receive(redact(message))
                if not self._has_result and len(session.columns):
                    self._has_result = True
                    self._on_result()
                self._news.set()
                self._moved()
                if session.state is State.REFUSED:
                    self._watchdog.dying(self._clock())
                    self._rearm()
                elif waited and not session.over:
                    await self._let_gather()

    async def _let_gather(self) -> None:
        """Let results gather in the kernel, where they wake nobody, once one had to be waited for: the end of the connection still does.

        Nothing is sent meanwhile: a send that fails takes down what is not read yet, and with it the reason.
        """
        session = self._session
        gathering = gathering_s(session.acknowledged_ms, self._clock() - self._window.started_at, session.endpoint.item_ms, session.end_ms)
        if not gathering or self._sending.locked() or self._unsent():
            return
        async with self._sending:
            self._set_low_water(LOW_WATER_BYTES)
            try:
                await asyncio.sleep(gathering)
            finally:
                self._set_low_water(1)
            await asyncio.sleep(0)  # what lies there is read first

    def _set_low_water(self, size: int) -> None:
        """Let the socket be readable for so many bytes; where the system knows no such thing, each message wakes the loop as ever."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    async def _send(self, audio: AsyncIterator[bytes], chunk_bytes: int) -> None:
        try:
            async with aclosing(whole_frames(audio, chunk_bytes, self._session.parameters.frame_bytes)) as chunks:
                async for chunk in chunks:
                    await self._wait_for_turn()
                    await self._wait_for_room()
                    await self._listen()
                    await self._transmit(chunk)
            self._session.end_of_stream()
            self._watchdog.draining(self._clock(), max(self._session.audio_sent_ms, self._session.expected_ms or 0))
            self._rearm()
            async with self._sending:
                await self._connection.send("")
        except SourceFailure as failure:
            self._source_failure = failure.cause
            self._rearm()
        except Exception:  # noqa: BLE001 - a failed send has many shapes; the receiver knows the reason
            self._watchdog.dying(self._clock())
            self._rearm()

    async def _transmit(self, chunk: bytes) -> None:
        async with self._sending:
            self._session.sending(len(chunk))
            self._window.sending(len(chunk), self._clock())
            await self._connection.send(chunk)
        self._moved()

    async def _listen(self) -> None:
        """Give a refusal the time to arrive before more is sent: what a reset throws away would have been paid, and its reason lost."""
        if self._cautious and self._session.bytes_sent:
            self._cautious = False
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.listen_s):
                    await self._news.wait()
            self._moved()

    async def _wait_for_turn(self) -> None:
        """Sleep for as long as the pace asks: a silence of our own is no stall, however long."""
        due = self._window.started_at + self._settings.pace.due_s(self._session.bytes_sent, self._session.parameters.bytes_per_second)
        while (early := due - self._clock()) > 0:
            await asyncio.sleep(min(early, self._settings.deadlines.progress_s / 2))
            self._moved()

    async def _wait_for_room(self) -> None:
        while (patience := self._patience_s()) > 0 or (not self._window.has_room and self._unsent()):
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(patience, BUFFER_POLL_S)):
                    await self._news.wait()

    def _patience_s(self) -> float:
        """Seconds that the next chunk has to wait, by what the service has answered until now."""
        now = self._clock()
        self._window.answered(self._session.acknowledged_ms, now)
        return self._window.wait_s(now)

    def _unsent(self) -> int:
        return self._connection.transport.get_write_buffer_size()
