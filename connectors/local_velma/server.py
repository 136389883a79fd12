"""The local Velma server: an aiohttp application that speaks both protocols as the seed pages define them.

Audio is decoded and judged in child processes; this process only moves bytes and messages between them and the WebSocket.
It is a reference detector, not Modulate's model, and says so wherever its results show.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web

from connectors.local_velma.connection import ANALYSIS, Connection, Service
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.media import MediaHost
from moderation.endpoints import ENDPOINTS, Endpoint

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

NOTICE = "soundcheck's local Velma server: a reference detector, not Modulate's model"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The seed pages take chunks of any size; this bounds what a client can make the server hold."""


@dataclass(frozen=True, slots=True)
class LocalVelma:
    """A running local server: its `ws://` URL, its organisation and its journal, both readable and changeable while it runs."""

    url: str
    organisation: Organisation
    journal: Journal


@asynccontextmanager
async def local_velma(
    organisation: Organisation, *, port: int = 0, journal: Journal | None = None, detector: str = "signal"
) -> AsyncIterator[LocalVelma]:
    """A local server on loopback, on any free port unless one is given; detector is "signal" or "stub" (instant, for load tests).

    Raises OSError when the port is taken.
    """
    book = journal or Journal()
    async with MediaHost(preload=[ANALYSIS]) as media:
        service = Service(organisation, book, media, detector)
        runner = web.AppRunner(_application(service), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            yield LocalVelma(f"ws://127.0.0.1:{_port(runner.addresses)}", organisation, book)
        finally:
            await runner.cleanup()


def _port(addresses: Sequence[Any]) -> int:
    return int(addresses[0][1])


def _application(service: Service) -> web.Application:
    application = web.Application()
    application.router.add_get("/", _front_page)
    for endpoint in ENDPOINTS.values():
        application.router.add_get(endpoint.path, _stream_of(endpoint, service))
    return application


async def _front_page(_: web.Request) -> web.Response:
    paths = "\n".join(endpoint.path for endpoint in ENDPOINTS.values())
    return web.Response(text=f"{NOTICE}\n{paths}\n")


def _stream_of(endpoint: Endpoint, service: Service) -> Handler:
    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE_BYTES, heartbeat=None)
        await socket.prepare(request)
        await Connection(service, endpoint, socket).serve(request)
        return socket

    return stream
