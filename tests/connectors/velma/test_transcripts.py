"""Transcripts of real sessions: what was recorded replays to what happened, and holds neither audio nor the key."""

import logging
from pathlib import Path

import pytest

from canary import CANARY_HEAD
from moderation.endpoints import ENDPOINTS
from moderation.errors import Phase, SessionError
from moderation.transcript import Opened, Sent, from_lines, replay
from velma_faults import ECHOES, FAULTS, Fault
from velma_services import AI_MUSIC, KEY, MUSIC, RAW, SECOND, canary_client_of, client_of, pieces

pytestmark = pytest.mark.net


def read(folder: Path) -> list:
    (file,) = folder.iterdir()
    assert file.suffix == ".jsonl"
    assert file.stat().st_size < 100_000
    content = file.read_bytes()
    assert CANARY_HEAD.encode() not in content
    assert KEY.encode() not in content
    return from_lines(content.splitlines())


def facts(error: SessionError) -> dict[str, object]:
    """All but the scope: that is the client's reading of them."""
    return {name: fact for name, fact in vars(error).items() if name != "scope"} | {"says": str(error)}


@pytest.mark.parametrize("endpoint", [MUSIC, AI_MUSIC], ids=["music", "ai_music"])
async def test_a_good_session_replays_to_its_result(velma, tmp_path, endpoint):
    client = client_of(velma.url, transcripts=tmp_path / "made" / "here", chunk_bytes=7777)
    result = await client.analyse(endpoint, RAW, pieces(bytes(SECOND * 9)), expected_ms=9000, session_id="0190")
    transcript = read(tmp_path / "made" / "here")
    assert [path.name for path in (tmp_path / "made" / "here").iterdir()] == ["0190.jsonl"]
    again = replay(transcript).result()
    assert again.columns.packed() == result.columns.packed()
    assert (again.done, again.flags, again.close_code, again.wire_shape) == (result.done, result.flags, 1000, result.wire_shape)
    assert transcript[0] == Opened(endpoint.name, RAW, 9000)
    assert sum(entry.size for entry in transcript if isinstance(entry, Sent)) == SECOND * 9


CONNECTED = {name: fault for name, fault in (FAULTS | ECHOES).items() if fault.says.get("phase") is not Phase.CONNECTING}


@pytest.mark.parametrize("name", CONNECTED)
async def test_a_failed_session_replays_to_its_error(velma, tmp_path, name):
    fault: Fault = CONNECTED[name]
    failure = await fault.meet(velma, lambda host, **settings: canary_client_of(host, transcripts=tmp_path, **settings))
    transcript = read(tmp_path)
    if failure.phase is Phase.CONNECTING:
        assert len(transcript) == 1  # refused before it was a session
        return
    with pytest.raises(SessionError) as raised:
        replay(transcript, ENDPOINTS).result()
    assert facts(raised.value) == facts(failure)


async def test_without_the_setting_nothing_is_written(velma, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await client_of(velma.url).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert list(tmp_path.iterdir()) == []


async def test_sessions_without_a_name_have_files_of_their_own(velma, tmp_path):
    client = client_of(velma.url, transcripts=tmp_path)
    for _ in range(2):
        await client.analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_disk_that_refuses_costs_no_session(velma, tmp_path, caplog):
    (tmp_path / "a file").touch()
    client = client_of(velma.url, transcripts=tmp_path / "a file")
    with caplog.at_level(logging.WARNING):
        result = await client.analyse(MUSIC, RAW, pieces(bytes(SECOND)), session_id="0190")
    assert len(result.columns) == 5
    assert [record.getMessage() for record in caplog.records if record.name == "soundcheck.velma"] == [
        f"no transcript {tmp_path / 'a file' / '0190.jsonl'}: File exists"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
async def test_a_disk_that_is_full_ends_the_transcript_alone(velma, tmp_path, caplog):
    (tmp_path / "0190.jsonl").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        result = await client_of(velma.url, transcripts=tmp_path).analyse(MUSIC, RAW, pieces(bytes(SECOND * 60)), session_id="0190")
    assert len(result.columns) == 312
    (message,) = [record.getMessage() for record in caplog.records if record.name == "soundcheck.velma"]
    assert message.endswith("No space left on device")
