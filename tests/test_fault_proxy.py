"""The fault proxy of the tests does what it says: to plain TCP, so that a session's tests can rely on it."""

import asyncio
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fault_proxy import FaultProxy, Toxics, delay_s

pytestmark = pytest.mark.net

SAID = bytes(range(256)) * 40


class Server:
    """It notes what it is sent, and says SAID to who has ended."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.reads: list[int] = []
        self.ending = ""
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                self.reads.append(len(data))
            self.ending = "closed"
            writer.write(SAID)
            await writer.drain()
        except ConnectionResetError:
            self.ending = "reset"
        finally:
            writer.close()
            self.over.set()


@asynccontextmanager
async def behind(**toxics) -> AsyncIterator[tuple[Server, FaultProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server behind the proxy, and a connection to it."""
    server = Server()
    async with (
        await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening,
        FaultProxy(*listening.sockets[0].getsockname(), **toxics) as proxy,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield server, proxy, reader, writer
        finally:
            writer.transport.abort()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(SAID)
    writer.write_eof()
    return await reader.read(-1)


@pytest.mark.parametrize(
    "toxics",
    [
        {},
        {"up": Toxics(slice_bytes=1), "down": Toxics(slice_bytes=7)},
        {"up": Toxics(latency_s=0.05, jitter_s=0.05), "down": Toxics(latency_s=0.02, slice_bytes=100), "seed": 7},
        {"up": Toxics(slow_close_s=0.05)},
        {"down": Toxics(bytes_per_second=200_000)},
    ],
    ids=["clean", "slices", "latency", "slow close", "bandwidth"],
)
async def test_nothing_is_lost_or_changed(toxics):
    async with behind(**toxics) as (server, proxy, reader, writer):
        assert await talk(reader, writer) == SAID
        assert (bytes(server.heard), server.ending) == (SAID, "closed")
        assert proxy.forwarded == {"up": len(SAID), "down": len(SAID)}
        assert (proxy.accepted, proxy.tripped.is_set()) == (1, False)


async def test_slices_arrive_almost_one_by_one():
    """The reader of a stream wakes a turn of the loop after its data: two may have come by then."""
    async with behind(up=Toxics(slice_bytes=1)) as (server, _, reader, writer):
        await talk(reader, writer)
    assert len(server.reads) > len(SAID) / 4


@pytest.mark.parametrize(
    ("toxics", "least_s"),
    [
        ({"down": Toxics(latency_s=0.1)}, 0.1),
        ({"up": Toxics(latency_s=0.1), "down": Toxics(latency_s=0.1)}, 0.2),
        ({"up": Toxics(bytes_per_second=len(SAID) * 5)}, 0.18),
        ({"up": Toxics(slow_close_s=0.1), "down": Toxics(slow_close_s=0.1)}, 0.2),
    ],
    ids=["latency", "latency both ways", "bandwidth", "slow close"],
)
async def test_it_takes_the_time_it_is_told(toxics, least_s):
    clock = asyncio.get_running_loop().time
    async with behind(**toxics) as (_, _, reader, writer):
        began = clock()
        assert await talk(reader, writer) == SAID
        assert clock() - began >= least_s


async def test_a_latency_does_not_slow_what_follows():
    clock = asyncio.get_running_loop().time
    async with behind(up=Toxics(latency_s=0.2)) as (server, _, _, writer):
        began = clock()
        for _ in range(20):
            writer.write(b"x" * 100)
            await asyncio.sleep(0.005)
        writer.write_eof()
        await server.over.wait()
        assert 0.2 <= clock() - began < 2  # not 20 times


async def test_a_stalled_direction_stays_open_and_the_other_goes_on():
    async with behind(up=Toxics(stall_after=100)) as (server, proxy, reader, writer):
        writer.write(SAID)
        writer.write_eof()
        await proxy.tripped.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert (len(server.heard), server.ending) == (100, "")
        assert proxy.forwarded == {"up": 100, "down": 0}


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("size", [0, 1, 5000])
async def test_a_reset_is_a_reset_on_both_sides(direction, size):
    async with behind(**{direction: Toxics(reset_after=size)}) as (server, proxy, reader, writer):
        with pytest.raises(ConnectionResetError):
            await talk(reader, writer)
        assert proxy.tripped.is_set()
        assert proxy.forwarded[direction] == size
        if direction == "up" and size:
            await server.over.wait()
            assert server.ending == "reset"


async def test_a_reset_at_any_time():
    async with behind() as (server, proxy, reader, writer):
        writer.write(b"x")
        while not server.heard:
            await asyncio.sleep(0.005)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await server.over.wait()
        assert server.ending == "reset"


async def test_a_limit_closes_after_so_many_bytes():
    async with behind(down=Toxics(limit=1234)) as (_, proxy, reader, writer):
        assert await talk(reader, writer) == SAID[:1234]
        assert proxy.tripped.is_set()


async def test_a_server_that_is_not_there_resets_the_client():
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as listening:
        address = listening.sockets[0].getsockname()
    async with FaultProxy(*address) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_a_side_that_resets_resets_the_other():
    async with behind() as (server, _, _, writer):
        writer.write(SAID)
        while not server.heard:
            await asyncio.sleep(0.005)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await server.over.wait()
        assert server.ending == "reset"


def test_jitter_is_decided_by_the_seed():
    def delays(seed: int) -> list[float]:
        chance = random.Random(seed)
        return [delay_s(Toxics(latency_s=0.2, jitter_s=0.1), chance) for _ in range(50)]

    assert delays(1) == delays(1) != delays(2)
    assert 0.1 <= min(delays(1)) < 0.15
    assert 0.25 < max(delays(1)) <= 0.3


@pytest.mark.parametrize("words", [["latency=1"], ["latency_s"], ["limit=x"], ["latency_s=0.1", "jitter_s=0.2"]])
def test_words_that_are_no_toxics(words):
    with pytest.raises((TypeError, ValueError)):
        Toxics.parse(words)


async def test_it_runs_as_a_program():
    program = str(Path(__file__).parent / "support" / "fault_proxy.py")
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        words = ["--to", f"127.0.0.1:{port}", "--seed", "3", "--up", "slice_bytes=100", "latency_s=0.01", "--down", "limit=10"]
        proxy = await asyncio.create_subprocess_exec(sys.executable, program, *words, stdout=asyncio.subprocess.PIPE)
        try:
            address = (await proxy.stdout.readline()).decode().split()[0]
            reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            assert await talk(reader, writer) == SAID[:10]
            writer.close()
        finally:
            proxy.terminate()
            await proxy.wait()
    helped = await asyncio.create_subprocess_exec(sys.executable, program, "--help", stdout=asyncio.subprocess.PIPE)
    said, _ = await helped.communicate()
    assert helped.returncode == 0
    assert all(name in said.decode() for name in ("latency_s", "jitter_s", "stall_after", "slow_close_s", "--seed"))
