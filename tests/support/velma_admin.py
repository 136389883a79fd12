"""The local server's admin API as a client of it, and sessions to watch through it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from connectors.local_velma.server import LocalVelma
from moderation.endpoints import ENDPOINTS

KEY, OTHER = "sk-live-0123456789abcdef", "sk-live-fedcba9876543210"
RAW = {"audio_format": "s16le", "sample_rate": "16000", "num_channels": "1"}
FRAME = bytes(2 * 3072)
"""192 ms of RAW."""
PATIENCE = 60.0


class Admin:
    """A client of the API, with the token unless told otherwise; of the journal it has what came since it began."""

    def __init__(self, browser: aiohttp.ClientSession, server: LocalVelma) -> None:
        self.browser = browser
        self.server = server
        self.began = 0

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        said = {"Authorization": f"Bearer {self.server.admin_token}", **headers}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        async with self.browser.request(method, self.server.admin_url + path, data=data, headers=said) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def change(self, **changes: Any) -> Any:
        return await self._patched("organisation", changes)

    async def switch(self, **changes: Any) -> Any:
        return await self._patched("switches", changes)

    async def journal(self, since: int | None = None) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.server.admin_token}"}
        async with self.browser.get(
            f"{self.server.admin_url}journal?since={self.began if since is None else since}", headers=headers
        ) as response:
            assert response.content_type == "application/x-ndjson"
            return [json.loads(line) for line in (await response.text()).splitlines()]

    async def all_free(self) -> None:
        """Wait until no session is live."""
        async with asyncio.timeout(PATIENCE):
            while (await self.get("sessions"))["sessions"]:
                await asyncio.sleep(0.01)

    async def until_noted(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """The journal, once it has so many of an event."""
        async with asyncio.timeout(PATIENCE):
            while True:
                lines = await self.journal()
                if [line["event"] for line in lines].count(event) >= times:
                    return lines
                await asyncio.sleep(0.01)

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while not holds(answer := await self.get(path)):
                await asyncio.sleep(0.01)
        return answer

    async def _patched(self, path: str, changes: dict[str, Any]) -> Any:
        status, answer = await self.ask("PATCH", path, changes)
        assert status == 200, answer
        return answer


@asynccontextmanager
async def connected(server: LocalVelma, endpoint: str = "music", key: str = KEY, **query: str) -> AsyncIterator[ClientConnection]:
    """A connection for RAW audio, or as the query says."""
    query = {"api_key": key} | (query if "audio_format" in query else RAW | query)
    async with connect(f"{server.url}{ENDPOINTS[endpoint].path}?{urlencode(query)}", proxy=None) as connection:
        yield connection


@asynccontextmanager
async def streaming(server: LocalVelma, endpoint: str = "music", key: str = KEY, **query: str) -> AsyncIterator[ClientConnection]:
    """A session that has said something, and waits for more audio."""
    async with connected(server, endpoint, key, **query) as connection:
        await connection.send(FRAME * (1 if endpoint == "music" else 21))
        await connection.recv()
        yield connection


async def the_rest(connection: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """Every message until the close, and its code."""
    messages: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                messages.append(json.loads(await connection.recv()))
    except ConnectionClosed:
        return messages, connection.close_code


async def analysed(
    server: LocalVelma, audio: bytes, endpoint: str = "music", *, chunk: int = 1 << 20, **query: str
) -> tuple[list[dict[str, Any]], int | None]:
    """What the server says about a whole piece of audio, and the close code."""
    async with connected(server, endpoint, **query) as connection:
        with contextlib.suppress(ConnectionClosed):
            for start in range(0, len(audio), chunk):
                await connection.send(audio[start : start + chunk])
            await connection.send("")
        return await the_rest(connection)


async def the_end(connection: ClientConnection) -> tuple[str | None, int | None]:
    """The error that comes at last, if any, and the close code."""
    messages, code = await the_rest(connection)
    return messages[-1].get("error") if messages else None, code
