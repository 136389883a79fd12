"""A proxy is used where one is set, sees nothing of the key, and is named where it is in the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from canary import CANARY_HEAD, surfaces
from connectors.velma import VelmaClient, VelmaSettings
from moderation.errors import ConfigurationError, Phase, Scope, SessionError
from velma_services import MUSIC, RAW, SECOND, canary_client_of, client_of, closed_port, done, item, last_words, listening, pieces, service

pytestmark = pytest.mark.net

PASSWORD = "pa55word"


@dataclass
class Tunnel:
    """An HTTP proxy that opens tunnels, and everything that went through it."""

    url: str = ""
    seen: bytearray = field(default_factory=bytearray)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.seen += request
        host, _, port = request.split()[1].decode().rpartition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, server_writer))
                both.create_task(self._pump(server_reader, writer))
        finally:
            for end in (writer, server_writer):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.seen += data
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def tunnel() -> AsyncIterator[Tunnel]:
    proxy, talks = Tunnel(), []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.create_task(proxy.serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        proxy.url = f"http://user:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
        await asyncio.gather(*talks)


async def test_a_session_goes_through_the_proxy():
    async with last_words(item(), done(1))(None) as host, tunnel() as proxy:
        result = await client_of(host, proxy=proxy.url).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert len(result.columns) == 1
    assert proxy.seen.startswith(f"CONNECT {host.removeprefix('ws://')} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " in proxy.seen.partition(b"\r\n\r\n")[0]
    assert len(proxy.seen) > SECOND


async def test_a_proxy_sees_nothing_of_the_key(certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with last_words(item(), done(1))(None) as plain, tunnel() as proxy:
        await canary_client_of(plain, proxy=proxy.url).analyse(MUSIC, RAW, pieces(b""))
        assert CANARY_HEAD.encode() in proxy.seen  # on loopback there is no TLS: the search itself works

    async def handler(connection) -> None:
        while await connection.recv():
            pass
        await connection.send(done())

    async with service(handler, ssl=certificate) as host, tunnel() as proxy:
        assert await canary_client_of(host, proxy=proxy.url).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
        assert len(proxy.seen) > SECOND
        assert CANARY_HEAD.encode() not in proxy.seen


def client_behind(proxy: str) -> VelmaClient:
    """No variable of a test holds the password."""
    return canary_client_of("wss://velma.example", proxy=proxy.replace("http://", f"http://user:{PASSWORD}@"))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", r"the proxy refused to connect to .* \(HTTP 407\)"),
        (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\n\r\n", r"the proxy refused to connect to .* \(HTTP 503\)"),
        (b"220 ready\r\n\r\n", r"the proxy on the way to .* does not answer like one"),
        (b"", r"the proxy on the way to .* does not answer like one"),
    ],
    ids=["407", "503", "another protocol", "hung up"],
)
async def test_a_proxy_in_the_way(answer, says):
    """It is not the service that has refused: no status of the service, no fault of an object."""
    async with listening(answer, scheme="http") as proxy:
        client = client_behind(proxy)
        with pytest.raises(SessionError, match=says) as raised:
            await client.analyse(MUSIC, RAW, pieces(b""))
    assert (raised.value.phase, raised.value.http_status, raised.value.protocol) == (Phase.CONNECTING, None, None)
    assert raised.value.scope is Scope.NETWORK
    assert [place for place, text in surfaces(raised.value).items() if PASSWORD in text or CANARY_HEAD in text] == []


async def test_a_proxy_that_is_not_there():
    async with closed_port(None, scheme="http") as proxy:
        with pytest.raises(SessionError, match=r"wss://velma\.example cannot be reached") as raised:
            await client_of("wss://velma.example", proxy=proxy).analyse(MUSIC, RAW, pieces(b""))
    assert raised.value.scope is Scope.NETWORK


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy.example:8080",
        "ftp://proxy.example",
        "socks5://user:pa55word@proxy.example",
        "http://",
        "http://user:pa55word@",
        "http://user@proxy.example",
        "http://user:pa55word@proxy.example/path",
        "http://proxy.example?pa55word",
        "http://user:pa55word@proxy.example:port",
    ],
)
def test_proxies_that_are_refused(proxy):
    with pytest.raises(ConfigurationError, match="is no proxy URL: give") as raised:
        VelmaSettings(proxy=proxy)
    assert PASSWORD not in str(raised.value)


def test_a_proxys_password_is_not_shown():
    settings = VelmaSettings(proxy=f"https://user:{PASSWORD}@proxy.example:8443")
    assert PASSWORD not in repr(settings)
