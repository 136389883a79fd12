"""Sessions that go well, over real sockets: against the local server, and against small servers of the test's own."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from canary import CANARY
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import AiMusicDone, MusicDone
from moderation.pacing import Deadlines, Pace
from moderation.session import ClientSession
from velma_services import (
    AI_MUSIC,
    MUSIC,
    RAW,
    SECOND,
    WAV,
    all_audio,
    as_wav,
    canary_client_of,
    client_of,
    done,
    error,
    item,
    last_words,
    pieces,
    service,
)

pytestmark = pytest.mark.net

LENGTH_MS = 8300
SAMPLES = bytes(SECOND * LENGTH_MS // 1000)


@pytest.mark.parametrize(("parameters", "audio"), [(RAW, SAMPLES), (WAV, as_wav(SAMPLES))], ids=["raw", "wav"])
@pytest.mark.parametrize(("endpoint", "items", "duration"), [(MUSIC, 43, 43 * 192), (AI_MUSIC, 2, LENGTH_MS)], ids=["music", "ai_music"])
async def test_a_good_session(velma, endpoint, items, duration, parameters, audio):
    sessions: list[ClientSession] = []
    result = await client_of(velma.url).analyse(
        endpoint, parameters, pieces(audio, 9_999), expected_ms=LENGTH_MS, on_session=sessions.append
    )
    assert len(result.columns) == items
    assert result.columns.covered_ms() == result.covered_ms == items * endpoint.item_ms
    assert isinstance(result.done, endpoint.done_type)
    assert (result.done.duration_ms, getattr(result.done, endpoint.count_field)) == (duration, items)
    assert getattr(result.done, endpoint.label_field) == ("neither" if endpoint is MUSIC else "not-ai-music")
    assert (result.flags, result.extra, result.close_code) == (frozenset(), {}, 1000)
    (session,) = sessions
    assert session.bytes_sent == len(audio)


@pytest.mark.parametrize(("endpoint", "type_"), [(MUSIC, MusicDone), (AI_MUSIC, AiMusicDone)])
async def test_no_audio_at_all(velma, endpoint, type_):
    result = await client_of(velma.url).analyse(endpoint, RAW, pieces(b""))
    assert isinstance(result.done, type_)
    assert not result.sufficient
    assert result.flags == frozenset()


async def test_many_sessions_at_once(velma):
    client = client_of(velma.url)
    results = await asyncio.gather(*(client.analyse(MUSIC, RAW, pieces(bytes(SECOND * seconds))) for seconds in range(1, 9)))
    assert [len(result.columns) for result in results] == [seconds * 1000 // 192 for seconds in range(1, 9)]


async def test_the_request():
    requests = []

    async def handler(connection: ServerConnection) -> None:
        requests.append((connection.request, connection.response))
        await all_audio(connection)
        await connection.send(done())

    async with service(handler, compression="deflate") as host:
        await canary_client_of(f"{host}/").analyse(MUSIC, RAW, pieces(b""))
        await canary_client_of(host).analyse(AI_MUSIC, WAV, pieces(b""))
    (music, answer), (ai_music, _) = requests
    assert urlsplit(music.path).path == "/api/velma-2-music-detection-streaming"
    assert parse_qs(urlsplit(music.path).query) == {
        "api_key": [CANARY],
        "audio_format": ["s16le"],
        "sample_rate": ["16000"],
        "num_channels": ["1"],
    }
    assert urlsplit(ai_music.path).path == "/api/velma-2-ai-music-detection-streaming"
    assert parse_qs(urlsplit(ai_music.path).query) == {"api_key": [CANARY], "audio_format": ["wav"]}
    assert "Sec-WebSocket-Extensions" not in music.headers
    assert "Sec-WebSocket-Extensions" not in answer.headers
    assert music.headers["User-Agent"] == "soundcheck"


async def test_no_proxy_of_the_environment(velma, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await client_of(velma.url).analyse(MUSIC, RAW, pieces(b""))


async def test_raw_audio_comes_in_whole_sample_frames():
    sizes = []

    async def handler(connection: ServerConnection) -> None:
        while message := await connection.recv():
            sizes.append(len(message))
        await connection.send(done())

    stereo = StreamParameters(AudioFormat.S24LE, 48000, 2)
    async with service(handler) as host:
        await client_of(host, chunk_bytes=1000).analyse(MUSIC, stereo, pieces(bytes(5003), 777))
    assert sizes == [996] * 5 + [18]  # 5003 bytes are 833 frames of 6 bytes, and 5 bytes that are none


async def test_a_pace_slower_than_the_deadline_is_no_stall(velma):
    began = asyncio.get_running_loop().time()
    client = client_of(velma.url, chunk_bytes=SECOND * 2, pace=Pace(1.0), deadlines=Deadlines(progress_s=1.0, close_s=0.5))
    assert len((await client.analyse(MUSIC, RAW, pieces(bytes(SECOND * 4)))).columns) == 20
    assert asyncio.get_running_loop().time() - began >= 2.0


async def test_a_long_object_may_take_its_time_at_the_end():
    """Of a container nobody knows the rate, and before the first result no length: what its header said counts."""

    async def handler(connection: ServerConnection) -> None:
        await all_audio(connection)
        await asyncio.sleep(0.6)
        await connection.send(done())

    async with service(handler) as host:
        client = client_of(host, deadlines=Deadlines(done_s=0.1, done_share=0.25, close_s=0.5))
        assert await client.analyse(MUSIC, WAV, pieces(bytes(1000)), expected_ms=200_000)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4029])
async def test_done_and_then_another_close_code(code):
    async with last_words(item(), done(1), code=code)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert (result.flags, result.close_code) == (frozenset(), code)


async def test_done_and_then_a_broken_connection():
    async with last_words(item(), done(1), code=None)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert (len(result.columns), result.flags, result.close_code) == (1, frozenset(), 1006)


async def test_done_and_then_an_error():
    async with last_words(done(), error("Insufficient credits."), code=4029)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert isinstance(result.done, MusicDone)
