"""A client of the streaming endpoints that knows nothing of soundcheck: what it gets is what is on the wire."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from moderation.endpoints import ENDPOINTS
from velma_services import KEY

WIRE_CHUNK_BYTES = 1 << 16


@asynccontextmanager
async def connected(url: str, endpoint: str, query: Mapping[str, str]) -> AsyncIterator[ClientConnection]:
    """A connection to an endpoint of the server at url; query is without the key."""
    async with connect(f"{url}{ENDPOINTS[endpoint].path}?{urlencode({'api_key': KEY, **query})}", proxy=None) as connection:
        yield connection


async def the_rest(connection: ClientConnection) -> tuple[list[str], int | None]:
    """The texts until the close, and its code."""
    texts = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            texts.append(str(await connection.recv()))
    await connection.wait_closed()
    return texts, connection.close_code


async def conversation(url: str, endpoint: str, query: Mapping[str, str], chunks: Iterable[bytes]) -> tuple[list[str], int | None]:
    """Send all of it, then the end, as far as the server takes it; what it said, and its close code."""
    async with connected(url, endpoint, query) as connection:
        with contextlib.suppress(ConnectionClosed):
            for chunk in chunks:
                await connection.send(chunk)
            await connection.send("")
        return await the_rest(connection)


def in_chunks(data: bytes, size: int = WIRE_CHUNK_BYTES) -> Iterable[bytes]:
    """The data in messages of one size."""
    return (data[at : at + size] for at in range(0, len(data), size))
