"""Where the key may travel: redirects, URLs, certificates."""

from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from canary import CANARY_HEAD, everything_logged, surfaces
from connectors.velma import ApiKey, VelmaClient, VelmaSettings, check_host
from moderation.errors import ConfigurationError, SessionError
from velma_services import (
    AI_MUSIC,
    KEY,
    MUSIC,
    RAW,
    SECOND,
    all_audio,
    canary_client_of,
    client_of,
    done,
    http,
    item,
    leaves,
    pieces,
    service,
)

pytestmark = pytest.mark.net


@pytest.mark.fault(19)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(status):
    visits = []

    async def target(connection: ServerConnection) -> None:
        visits.append(connection)

    async with service(target) as elsewhere, http(status, headers=[("Location", elsewhere + "{path}")])(None) as host:
        with pytest.raises(SessionError) as raised:
            await client_of(host).analyse(MUSIC, RAW, pieces(b""))
    assert raised.value.http_status == status
    assert visits == []


@pytest.mark.parametrize(
    "host",
    [
        "ws://modulate.example",
        "ws://10.0.0.1:8765",
        "ws://127.0.0.1.example",
        "ws://localhost.example",
        "http://127.0.0.1:8765",
        "https://modulate.example",
        "modulate.example",
        "user:pa55word@modulate.example",
        "wss://",
        "",
        "wss://modulate.example/api",
        "wss://modulate.example//",
        "wss://modulate.example?api_key=pa55word",
        "wss://modulate.example?",
        "wss://modulate.example/#pa55word",
        "wss://modulate.example#",
        "wss://user:pa55word@modulate.example",
        "wss://user@modulate.example",
        "wss://:pa55word@modulate.example",
        "wss://modulate.example:0",
        "wss://modulate.example:port",
        "wss://modulate.example:99999",
        "wss://[::1",
    ],
)
def test_hosts_that_are_refused(host):
    with pytest.raises(ConfigurationError) as raised:
        client_of(host)
    assert "pa55word" not in str(raised.value)


@pytest.mark.parametrize(
    "host", ["wss://modulate.example", "wss://modulate.example:8443", "wss://modulate.example/", "ws://127.0.0.1:1", "ws://[::1]:1"]
)
def test_hosts_that_are_taken(host):
    check_host(host)
    assert client_of(host).host(MUSIC) == host.rstrip("/")


def test_the_hosts_of_the_seed_pages():
    client = VelmaClient(ApiKey(KEY), VelmaSettings())
    assert client.host(MUSIC) == "wss://modulate-developer-apis.com"
    assert client.host(AI_MUSIC) == "wss://platform.modulate.ai"


@pytest.mark.fault(16)
async def test_a_certificate_that_is_not_trusted(certificate, caplog):
    requests = []

    def note(_: ServerConnection, request: Any) -> None:
        requests.append(request)

    async with service(leaves, ssl=certificate, process_request=note) as host:
        with everything_logged(caplog), pytest.raises(ConfigurationError, match=r"cannot be trusted \(self.signed certificate") as raised:
            await canary_client_of(host).analyse(MUSIC, RAW, pieces(b""))
    assert requests == []
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
    assert CANARY_HEAD not in caplog.text


async def test_a_session_over_tls(certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))

    async def handler(connection: ServerConnection) -> None:
        assert await all_audio(connection) == SECOND * 60
        await connection.send(item())
        await connection.send(done(1))

    async with service(handler, ssl=certificate) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 60)))
    assert (result.flags, result.close_code) == (frozenset(), 1000)
