"""One connection to the local Velma server: admitted or refused, then its audio and its findings moved until one side is through."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import msgspec
from aiohttp import WSMsgType, web

from connectors.local_velma.fault_script import FaultScript
from connectors.local_velma.faults import Fault, Role
from connectors.local_velma.faulty_messages import Frame
from connectors.local_velma.faulty_session import FaultySession, Hold, Note, Pause, Reset, Revoke, Step
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation, Refusal, Seat
from connectors.local_velma.parameters import parameters_of
from connectors.local_velma.switches import NO_SWITCHES, Switches
from connectors.local_velma.wire import hold, http_refusal, reset
from connectors.media import MediaHost
from moderation.endpoints import Endpoint
from moderation.formats import StreamParameters
from moderation.messages import Done, ErrorMessage, Item, decode
from moderation.server_session import UNSUPPORTED_DATA, Close, Feed, Finish, Send, ServerSession, ServerState

ANALYSIS = "connectors.local_velma.analysis"
UNDECODABLE = 4002
BROKEN = Refusal(1011, "Internal server error")
"""Ours to mend: the log has the reason."""


@dataclass(slots=True)
class Service:
    """What every connection of a server shares; other switches are for the connections that come after."""

    organisation: Organisation
    journal: Journal
    media: MediaHost
    detector: str
    switches: Switches = NO_SWITCHES
    faults: FaultScript = field(default_factory=FaultScript)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def switch(self, switches: Switches) -> None:
        """Let the connections that come after have these switches, and the journal say whose findings they are."""
        self.switches = switches
        self.journal.detector = switches.detector


async def accept(service: Service, endpoint: Endpoint, socket: web.WebSocketResponse, request: web.Request) -> web.StreamResponse:
    """Serve one request for a stream to its end: over a WebSocket, unless a fault refuses the upgrade."""
    number = next(service.numbers)
    faults = service.faults.take(endpoint.name, number) if socket.can_prepare(request) else ()
    for fault in faults:
        if fault.kind.role is Role.HTTP:
            service.journal.note("fault", number, endpoint.name, spec=fault.spec)
            return http_refusal(fault, request)
    await socket.prepare(request)
    await Connection(service, endpoint, socket, number, faults).serve(request)
    return socket


class Connection:
    """One WebSocket: admitted or refused, then pumped in both directions until done, an error, or the client's leaving."""

    def __init__(
        self, service: Service, endpoint: Endpoint, socket: web.WebSocketResponse, number: int, faults: tuple[Fault, ...] = ()
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.socket = socket
        self.switches = service.switches
        honest = ServerSession(endpoint.shapes[-1 if self.switches.newer_windows else 0])
        self.session = FaultySession(honest, endpoint, faults)
        self.verdict: str | None = None
        """The AI verdict that the client has asked for, where that is honoured."""
        self.number = number
        self.bytes_received = 0
        self.audio_ms = 0
        self.items = 0
        self.close_code: int | None = None
        """What the session wants the connection closed with, once nobody reads from it or writes to it any more."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Refusal] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None

    async def serve(self, request: web.Request) -> None:
        """Check the parameters, then the key and limits (seed pages: 1003, then 4003 and 4029), then analyse."""
        self._transport = request.transport
        parameters = parameters_of(request.query, self.switches)
        self.verdict = self.switches.asked_verdict(request.query)
        if isinstance(parameters, str):
            await self._refuse(Refusal(UNSUPPORTED_DATA, parameters))
        elif isinstance(entered := self.service.organisation.enter(request.query.get("api_key"), self), Refusal):
            await self._refuse(entered)
        else:
            await self._serve_admitted(parameters, entered)
        await self._close()

    def end(self, refusal: Refusal) -> None:
        """Refuse it in mid-stream. Any thread may call this."""
        self._loop.call_soon_threadsafe(self._end, refusal)

    def _end(self, refusal: Refusal) -> None:
        if not self._ended.done():
            self._ended.set_result(refusal)

    async def _serve_admitted(self, parameters: StreamParameters, seat: Seat) -> None:
        """Analyse, and give the organisation's connection back when the transport is closed."""
        organisation = self.service.organisation
        self.service.journal.live(self.endpoint.name, organisation.live[self.endpoint.name])
        self._note("connect", live=organisation.live[self.endpoint.name], key=seat.key_number, **asdict(parameters))
        try:
            await self._do(self.session.opened())
            if self.session.state is not ServerState.CLOSED:
                await self._analyse(parameters)
        except Exception:  # whatever happened here, the client is told that it was not its fault
            await self._refuse(BROKEN)
            raise
        finally:
            await self._close()
            organisation.leave(self)
            self._note("close", code=self.socket.close_code, bytes=self.bytes_received, audio_ms=self.audio_ms, items=self.items)

    async def _close(self) -> None:
        """Close as the session wants it; until the client does too, what it still sends is read: a reset would take the last words back."""
        if self.close_code is not None:
            await self.socket.close(code=self.close_code)

    async def _analyse(self, parameters: StreamParameters) -> None:
        """Upload and report until one side has had its last word."""
        options = {"endpoint": self.endpoint.name, "detector": self.service.detector, "verdict": self.verdict}
        async with self.service.media.open(f"{ANALYSIS}:run", options | asdict(parameters) | self.switches.options()) as (reader, writer):
            tasks = [asyncio.create_task(work) for work in (self._upload(writer), self._findings(reader), self._obey())]
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def _upload(self, writer: asyncio.StreamWriter) -> None:
        """Hand the client's audio to the analysis, as fast as that takes it, until the client leaves or breaks the protocol."""
        async for message in self.socket:
            if message.type not in {WSMsgType.BINARY, WSMsgType.TEXT}:
                return  # no valid WebSocket message: aiohttp has closed
            if message.type is WSMsgType.BINARY and not self.bytes_received:
                self._note("first_audio")
            data: str | bytes = message.data
            await self._do(self.session.receive(data), writer)
            if self.session.state is ServerState.CLOSED:
                return

    async def _findings(self, reader: asyncio.StreamReader) -> None:
        """Send on what the analysis finds, a wire message a line; a child that ended without a last word could not cope with the audio."""
        endpoint = self.endpoint
        with suppress(ConnectionError):  # a child that dies while it is being written to
            async for line in reader:
                message = decode(line.decode(), endpoint.item_name, endpoint.item_type, endpoint.done_type).message
                if isinstance(message, ErrorMessage):
                    await self._refuse(Refusal(UNDECODABLE, message.error))
                elif isinstance(message, Item | Done):
                    await self._report(message)
                else:
                    raise TypeError(f"the analysis said {message}")
                if self.session.state is ServerState.CLOSED:
                    return
        await self._refuse(Refusal(UNDECODABLE, "The audio could not be processed. It may be corrupted or in an unsupported format."))

    async def _obey(self) -> None:
        """Refuse what somebody has told to `end`; a session whose last words are being said ends by itself."""
        refusal = await self._ended
        if self.session.state is ServerState.CLOSED:
            await asyncio.Event().wait()
        await self._refuse(refusal)

    async def _report(self, message: Item | Done) -> None:
        if isinstance(message, Item):
            self.items += 1
            self._use(message.end_time_ms)
            if (exhausted := self.service.organisation.exhausted()) is not None:
                await self._refuse(exhausted)
                return
        else:
            self._use(message.duration_ms or 0)
            self._note("done", summary=msgspec.to_builtins(message))
        await self._do(self.session.found(message))

    def _use(self, reached_ms: int) -> None:
        """Count audio up to here as analysed."""
        self.service.organisation.use(self.endpoint.name, max(0, reached_ms - self.audio_ms))
        self.audio_ms = max(self.audio_ms, reached_ms)

    async def _refuse(self, refusal: Refusal) -> None:
        self._note("refused", code=refusal.code, text=refusal.text)
        await self._do(self.session.refuse(refusal.code, refusal.text))

    async def _do(self, steps: list[Step], writer: asyncio.StreamWriter | None = None) -> None:
        """Do these in order; how it is to end is known from the first, as a client may leave while the last words are still sent."""
        self.close_code = next((step.code for step in steps if isinstance(step, Close)), self.close_code)
        for step in steps:
            await self._act(step, writer)

    async def _act(self, step: Step, writer: asyncio.StreamWriter | None = None) -> None:
        with suppress(ConnectionError):  # the other side has left: its loop ends by itself
            match step:
                case Send(text=text):
                    await self.socket.send_str(text)
                case Close():
                    pass
                case Feed(audio=audio) if writer is not None:
                    self.bytes_received += len(audio)
                    writer.write(audio)
                    await writer.drain()
                case Finish() if writer is not None:
                    writer.write_eof()
                case _:
                    await self._misbehave(step)

    async def _misbehave(self, step: Step) -> None:
        """Do what only a session with faults asks for."""
        match step:
            case Note(spec=spec):
                self._note("fault", spec=spec)
            case Frame(opcode=opcode, payload=payload):
                await self.socket.send_frame(payload, cast("WSMsgType", opcode))
            case Pause(seconds=seconds):
                await asyncio.sleep(seconds)
            case Hold():
                await hold(self.socket, self._transport)
            case Reset():
                await reset(self._transport)
            case Revoke():
                self.service.organisation.revoke_key(self.service.organisation.seats[self.number].key)

    def _note(self, event: str, **facts: Any) -> None:
        self.service.journal.note(event, self.number, self.endpoint.name, **facts)
