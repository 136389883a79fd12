"""The local Velma server: an aiohttp application that speaks both protocols as the seed pages define them.

Audio is decoded and judged in child processes; this process only moves bytes and messages between them and the WebSocket.
It is a reference detector, not Modulate's model, and says so wherever its results show.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from connectors.local_velma import admin
from connectors.local_velma.connection import ANALYSIS, Service, accept
from connectors.local_velma.detectors import DetectorName, detector_source
from connectors.local_velma.fault_admin import fault_routes
from connectors.local_velma.fault_script import FaultScript
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.switches import NO_SWITCHES, Switches
from connectors.media import Limits, MediaHost
from moderation.endpoints import ENDPOINTS, Endpoint

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The seed pages take chunks of any size; this bounds what a client can make the server hold."""


def notice(switches: Switches) -> str:
    """What this is, for people."""
    return f"soundcheck's local Velma server: {switches.detector}"


NOTICE = notice(NO_SWITCHES)


@dataclass(frozen=True, slots=True)
class LocalVelma:
    """A running local server: its `ws://` URL, its organisation, journal and faults, all readable and changeable while it runs.

    admin_url and admin_token are those of the API that does the same for other processes.
    """

    url: str
    organisation: Organisation
    journal: Journal
    faults: FaultScript
    admin_url: str
    admin_token: str = field(repr=False)


@asynccontextmanager
async def local_velma(
    organisation: Organisation,
    *,
    port: int = 0,
    journal: Journal | None = None,
    detector: str = DetectorName.SIGNAL,
    switches: Switches = NO_SWITCHES,
    faults: FaultScript | None = None,
    admin_token: str | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[LocalVelma]:
    """A local server on loopback, on any free port unless one is given.

    detector is a DetectorName; limits are those of each session's child, and the detector's unless given; a random admin_token is made
    unless one is given. Raises OSError when the port is taken, ConfigurationError when there is no such detector here.
    """
    listener = detector_source(detector)
    book, token = journal or Journal(), admin_token or secrets.token_urlsafe()
    async with MediaHost([ANALYSIS, listener.module], limits or listener.limits) as media:
        service = Service(organisation, book, media, detector, faults=faults or FaultScript())
        service.switch(switches)
        runner = web.AppRunner(_application(service, token), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            host = f"127.0.0.1:{_port(runner.addresses)}"
            yield LocalVelma(f"ws://{host}", organisation, book, service.faults, f"http://{host}{admin.PREFIX}", token)
        finally:
            await runner.cleanup()


def _port(addresses: Sequence[Any]) -> int:
    return int(addresses[0][1])


def _application(service: Service, token: str) -> web.Application:
    async def front_page(_: web.Request) -> web.Response:
        paths = "\n".join(endpoint.path for endpoint in ENDPOINTS.values())
        return web.Response(text=f"{notice(service.switches)}\n{paths}\n")

    async def say_whose(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Detector"] = service.switches.detector

    application = web.Application(middlewares=[admin.guard(token)])
    application.on_response_prepare.append(say_whose)
    application.router.add_get("/", front_page)
    application.add_routes([*admin.routes(service), *fault_routes(service)])
    for endpoint in ENDPOINTS.values():
        application.router.add_get(endpoint.path, _stream_of(endpoint, service))
    return application


def _stream_of(endpoint: Endpoint, service: Service) -> admin.Handler:
    async def stream(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE_BYTES, heartbeat=None)
        return await accept(service, endpoint, socket, request)

    return stream
