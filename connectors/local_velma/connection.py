"""One connection to the local Velma server: admitted or refused, then its audio and its findings moved until one side is through."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation, Refusal
from connectors.local_velma.parameters import parameters_of
from connectors.media import MediaHost
from moderation.endpoints import Endpoint
from moderation.formats import StreamParameters
from moderation.messages import Done, ErrorMessage, Item, decode
from moderation.server_session import UNSUPPORTED_DATA, Action, Close, Feed, Finish, Send, ServerSession, ServerState

ANALYSIS = "connectors.local_velma.analysis"
UNDECODABLE = 4002
BROKEN = Refusal(1011, "Internal server error")
"""Ours to mend: the log has the reason."""


@dataclass(frozen=True, slots=True)
class Service:
    """What every connection of a server shares."""

    organisation: Organisation
    journal: Journal
    media: MediaHost
    detector: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class Connection:
    """One WebSocket: admitted or refused, then pumped in both directions until done, an error, or the client's leaving."""

    def __init__(self, service: Service, endpoint: Endpoint, socket: web.WebSocketResponse) -> None:
        self.service = service
        self.endpoint = endpoint
        self.socket = socket
        self.session = ServerSession()
        self.number = next(service.numbers)
        self.bytes_received = 0
        self.audio_ms = 0
        self.items = 0
        self.close_code: int | None = None
        """What the session wants the connection closed with, once nobody reads from it or writes to it any more."""

    async def serve(self, request: web.Request) -> None:
        """Check the parameters, then the key and limits (seed pages: 1003, then 4003 and 4029), then analyse."""
        parameters = parameters_of(request.query)
        if isinstance(parameters, str):
            await self._refuse(Refusal(UNSUPPORTED_DATA, parameters))
        elif (refusal := self.service.organisation.enter(request.query.get("api_key"), self.endpoint.name)) is not None:
            await self._refuse(refusal)
        else:
            await self._serve_admitted(parameters)
        await self._close()

    async def _serve_admitted(self, parameters: StreamParameters) -> None:
        """Analyse, and give the organisation's connection back when the transport is closed."""
        organisation = self.service.organisation
        self.service.journal.live(self.endpoint.name, organisation.live[self.endpoint.name])
        self._note("connect", live=organisation.live[self.endpoint.name], **asdict(parameters))
        try:
            await self._analyse(parameters)
        except Exception:  # whatever happened here, the client is told that it was not its fault
            await self._refuse(BROKEN)
            raise
        finally:
            await self._close()
            organisation.leave(self.endpoint.name)
            self._note("close", code=self.socket.close_code, bytes=self.bytes_received, audio_ms=self.audio_ms, items=self.items)

    async def _close(self) -> None:
        """Close as the session wants it; until the client does too, what it still sends is read: a reset would take the last words back."""
        if self.close_code is not None:
            await self.socket.close(code=self.close_code)

    async def _analyse(self, parameters: StreamParameters) -> None:
        """Upload and report until one side has had its last word."""
        options = {"endpoint": self.endpoint.name, "detector": self.service.detector, **asdict(parameters)}
        async with self.service.media.open(f"{ANALYSIS}:run", options) as (reader, writer):
            tasks = [asyncio.create_task(self._upload(writer)), asyncio.create_task(self._findings(reader))]
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
            for action in self.session.receive(data):
                await self._act(action, writer)
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
        for action in self.session.found(message):
            await self._act(action)

    def _use(self, reached_ms: int) -> None:
        """Count audio up to here as analysed."""
        self.service.organisation.use(max(0, reached_ms - self.audio_ms))
        self.audio_ms = max(self.audio_ms, reached_ms)

    async def _refuse(self, refusal: Refusal) -> None:
        self._note("refused", code=refusal.code, text=refusal.text)
        for action in self.session.refuse(refusal.code, refusal.text):
            await self._act(action)

    async def _act(self, action: Action, writer: asyncio.StreamWriter | None = None) -> None:
        with suppress(ConnectionError):  # the other side has left: its loop ends by itself
            match action:
                case Send(text=text):
                    await self.socket.send_str(text)
                case Close(code=code):
                    self.close_code = code
                case Feed(audio=audio) if writer is not None:
                    self.bytes_received += len(audio)
                    writer.write(audio)
                    await writer.drain()
                case Finish() if writer is not None:
                    writer.write_eof()

    def _note(self, event: str, **facts: Any) -> None:
        self.service.journal.note(event, self.number, self.endpoint.name, **facts)
