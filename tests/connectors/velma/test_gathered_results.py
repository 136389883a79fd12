"""Results that a client lets gather before it reads them: nothing is lost by that, whatever happens meanwhile."""

import asyncio
import socket
import struct

import pytest
from websockets.asyncio.server import ServerConnection

from connectors.velma import exchange
from moderation.errors import SessionError
from moderation.pacing import Deadlines, Pace
from velma_services import MUSIC, NOT_PERMITTED, RAW, SECOND, answers, client_of, error, item, pieces, service

pytestmark = pytest.mark.net
CHUNK = SECOND // 20
HOUR_S = 3600.0
FAST = Pace(50.0)
"""A chunk every millisecond: there is always one to be sent."""


@pytest.fixture
def gathering(monkeypatch):
    """Every result is followed by so many seconds in which others gather; how many there were."""
    monkeypatch.setattr(exchange, "WAITED_S", -1.0)
    taken: list[float] = []

    def for_seconds(seconds):
        monkeypatch.setattr(exchange, "gathering_s", lambda *_: taken.append(seconds) or seconds)
        return taken

    return for_seconds


async def test_what_has_gathered_is_all_there_and_done_is_heard_by_itself(gathering):
    taken = gathering(0.02)

    async def stays(connection: ServerConnection) -> None:
        await answers(connection)
        await connection.wait_closed()

    async with asyncio.timeout(20), service(stays) as host:
        result = await client_of(host, chunk_bytes=CHUNK, pace=FAST).analyse(MUSIC, RAW, pieces(bytes(10 * SECOND)))
    assert (len(result.columns), result.flags) == (52, frozenset())
    assert taken


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_refusal_is_heard_though_the_connection_ends_while_results_gather(gathering, request, tmp_path, monkeypatch, tls, reset):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    secure = {"ssl": request.getfixturevalue("certificate")} if tls else {}
    taken = gathering(0.2)

    async def refuses(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(item())
        while not taken:
            await asyncio.sleep(0.001)
        await connection.send(error(NOT_PERMITTED))
        await asyncio.sleep(0.01)
        if reset:
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()

    async with service(refuses, **secure) as host:
        client = client_of(host, chunk_bytes=CHUNK, pace=FAST)
        with pytest.raises(SessionError) as refused:
            await client.analyse(MUSIC, RAW, pieces(bytes(60 * SECOND)))
    assert refused.value.text == NOT_PERMITTED


async def test_a_session_that_is_dropped_while_results_gather_hears_the_service_say_goodbye(gathering):
    taken, said = gathering(HOUR_S), asyncio.get_running_loop().create_future()

    async def waits(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(item())
        async for _ in connection:
            pass
        said.set_result(connection.close_code)

    async with service(waits) as host:
        client = client_of(host, deadlines=Deadlines(close_s=HOUR_S))
        session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(bytes(SECOND))))
        while not taken:
            await asyncio.sleep(0.001)
        session.cancel()
        await asyncio.wait({session}, timeout=20)
        assert session.cancelled(), "it does not wait for an hour"
        assert await said == 1000
