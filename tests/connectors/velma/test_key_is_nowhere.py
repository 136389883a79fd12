"""The key is in nothing that an error, a result, a log or a file can show."""

import asyncio
import json

import pytest
from websockets.asyncio.server import ServerConnection

from canary import CANARY, CANARY_HEAD, everything_logged, surfaces
from connectors.velma import VelmaClient
from moderation.errors import Phase, SessionError, SourceGone
from velma_faults import ECHO, ECHOES, FAULTS, limited
from velma_services import (
    MUSIC,
    RAW,
    SECOND,
    all_audio,
    breaking,
    canary_client_of,
    done,
    listening,
    pieces,
    service,
)

pytestmark = pytest.mark.net


@pytest.mark.parametrize(("kind", "name"), [("fault", name) for name in FAULTS] + [("echo", name) for name in ECHOES])
async def test_the_key_is_nowhere(velma, kind, name, caplog, capfd):
    fault = (FAULTS if kind == "fault" else ECHOES)[name]
    asyncio.get_running_loop().set_debug(True)
    with everything_logged(caplog):
        failure = await fault.meet(velma, canary_client_of)
    if kind == "echo":
        assert {fact: getattr(failure, fact) for fact in fault.says} == fault.says
    places = surfaces(failure) | {"log": caplog.text, "console": "".join(capfd.readouterr()), "journal": velma.path.read_text()}
    assert [place for place, text in places.items() if CANARY_HEAD in text] == []


def test_the_canary_would_be_found():
    """The search itself works: a local variable does show."""

    def leak() -> None:
        url = f"ws://host?api_key={CANARY}"
        raise SessionError("failed", phase=Phase.CONNECTING, text=url)

    with pytest.raises(SessionError) as raised:
        leak()
    found = {place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text}
    assert found == {"str", "facts", "pickle", "traceback with locals"}


async def test_the_key_is_not_in_a_result():
    shown = json.dumps({"type": "hello", "note": ECHO})
    finding = json.loads(done()) | {"note": ECHO}

    async def handler(connection: ServerConnection) -> None:
        await all_audio(connection)
        await connection.send(shown)
        await connection.send(json.dumps(finding))

    async with service(handler) as host:
        result = await canary_client_of(host).analyse(MUSIC, RAW, pieces(b""))
    assert result.extra["note"] == "what you sent was [key]"
    assert "hello" in str(result.extra)
    assert CANARY_HEAD not in str(result.extra)


async def cancelled(client: VelmaClient) -> None:
    asyncio.get_running_loop().call_later(0.1, asyncio.current_task().cancel, "enough")
    await client.analyse(MUSIC, RAW, pieces(b""))


async def timed_out(client: VelmaClient) -> None:
    async with asyncio.timeout(0.1):
        await client.analyse(MUSIC, RAW, pieces(b""))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(("ending", "kind"), [(cancelled, asyncio.CancelledError), (timed_out, TimeoutError)])
async def test_the_key_is_not_in_a_cancellation(ending, kind, scheme, caplog):
    """While connecting, the library's own frames hold the URL."""
    asyncio.get_running_loop().set_debug(True)
    async with listening(None, scheme=scheme) as host:
        with everything_logged(caplog), pytest.raises(kind) as raised:
            await asyncio.create_task(ending(canary_client_of(host)))
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
    assert CANARY_HEAD not in caplog.text


async def test_the_key_is_not_in_the_failure_of_a_source(velma):
    async with limited()(velma) as host:
        with pytest.raises(SourceGone) as raised:
            await canary_client_of(host).analyse(MUSIC, RAW, breaking(SECOND, SourceGone("there is no such object (any more)")))
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
