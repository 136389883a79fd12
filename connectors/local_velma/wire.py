"""What goes on beneath a WebSocket of the local server when a session has faults: resets, and a silence that notices its end."""

import asyncio
import socket
import struct

from aiohttp import web

from connectors.local_velma.faults import Fault

REDIRECTS = range(300, 400)
HEARTBEAT_SECONDS = 0.1
RESET_AT_ONCE = struct.pack("ii", 1, 0)
"""The SO_LINGER that lets the kernel throw away what is on its way, and say so to the other side."""


def http_refusal(fault: Fault, request: web.Request) -> web.Response:
    """The answer to a request for an upgrade that a fault refuses; a redirect without a target leads back here, key and all."""
    status, said = fault.value
    headers = {}
    if status in REDIRECTS:
        headers["Location"] = said or request.path_qs
    elif said:
        headers["Retry-After"] = said
    return web.Response(status=status, headers=headers, text=f"refused with HTTP {status}")


async def reset(transport: asyncio.Transport | None) -> None:
    """End a TCP connection with a reset, as soon as the kernel has taken what was said before. None is one that has ended already."""
    while transport and transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for that
        await asyncio.sleep(HEARTBEAT_SECONDS)
    if transport and not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
        transport.abort()


async def hold(connection: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
    """Wait until the client has left. Nothing is read meanwhile, so that only writing can find that out: pings, which are no messages.

    Raises ConnectionError when it has.
    """
    while transport and not transport.is_closing():
        await connection.ping()
        await asyncio.sleep(HEARTBEAT_SECONDS)
