import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.lake.store import FolderStore
from connectors.spool import SharedSpool, Spool, SpoolDamaged
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError, ResultsNotWritable
from moderation.identity import session_id
from moderation.messages import Frame
from moderation.results import Columns, SpooledSession

NOW = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)


def a_session(number: int = 0) -> SpooledSession:
    columns = Columns(ENDPOINTS["music"])
    for index in range(20):
        columns.append(Frame(start_time_ms=index * 192, end_time_ms=index * 192 + 192, music_prob=None, speech_prob=0.25))
    return SpooledSession(
        session_id=session_id(NOW + timedelta(seconds=number), number.to_bytes(10, "big")),
        run_id="r1",
        endpoint="music",
        object_id="o1",
        attempt={"started_at": NOW, "error_text": None, "close_code": 1000},
        booked_ms=3840,
        sent_ms=3840,
        summary={"finished_at": NOW, "music_pct": 12.5, "key": "ä/b.mp3"},
        items=columns.packed(),
    )


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "state" / "spool")


@pytest.fixture
def shared(tmp_path):
    return SharedSpool(FolderStore(tmp_path / "results"), "_spool", "lake")


@pytest.fixture(params=["own", "shared"])
def either(request):
    return request.getfixturevalue("spool" if request.param == "own" else "shared")


def test_either_spool_keeps_names_and_forgets_sessions(either):
    for number in (1, 0):
        either.put(a_session(number))
    assert either.get(a_session().session_id) == a_session()
    assert either.ids() == [a_session(number).session_id for number in range(2)]
    either.remove([a_session().session_id, a_session(9).session_id])
    assert either.ids() == [a_session(1).session_id]
    assert either.get(a_session().session_id) is None


def test_a_shared_spool_lies_below_the_results_where_query_engines_do_not_look(shared, tmp_path):
    shared.put(a_session())
    assert (tmp_path / "results" / "v1" / "_spool" / a_session().session_id).is_file()


def test_what_is_set_aside_is_kept_but_no_entry_any_more(either):
    either.put(a_session())
    place = Path(either.set_aside(a_session().session_id))
    assert place.parent.name == "damaged"
    assert place.is_file()
    assert either.ids() == []
    assert either.get(a_session().session_id) is None
    assert either.set_aside(a_session().session_id) == str(place)


def test_says_how_much_its_disk_takes_before_there_is_anything(either):
    assert either.free_bytes() > 0


def test_gives_back_what_was_put(spool):
    spool.put(a_session())
    assert spool.get(a_session().session_id) == a_session()


async def test_the_event_loop_need_not_wait(spool):
    await spool.put_async(a_session())
    assert spool.ids() == [a_session().session_id]


def test_an_empty_spool_has_nothing(spool):
    assert spool.ids() == []
    assert spool.get(a_session().session_id) is None
    spool.remove([a_session().session_id])


def test_names_its_sessions_oldest_first_and_passes_over_the_rest(spool):
    for number in (2, 0, 1):
        spool.put(a_session(number))
    (spool.folder / f".{a_session(3).session_id}.00.tmp").write_bytes(b"half")
    (spool.folder / "README").write_bytes(b"")
    assert spool.ids() == [a_session(number).session_id for number in range(3)]


def test_putting_again_replaces(spool):
    spool.put(a_session())
    spool.put(a_session())
    assert len(list(spool.folder.iterdir())) == 1


def test_forgets_what_is_published(spool):
    for number in range(3):
        spool.put(a_session(number))
    spool.remove([a_session(0).session_id, a_session(2).session_id, a_session(9).session_id])
    assert spool.ids() == [a_session(1).session_id]


def test_every_truncation_is_noticed(spool):
    spool.put(a_session())
    path = spool.folder / a_session().session_id
    whole = path.read_bytes()
    for length in [*range(40), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(SpoolDamaged, match="damaged"):
            spool.get(a_session().session_id)


def test_every_flipped_bit_is_noticed(spool):
    spool.put(a_session())
    path = spool.folder / a_session().session_id
    whole = path.read_bytes()
    for bit in range(0, len(whole) * 8, 61):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(SpoolDamaged) as caught:
            spool.get(a_session().session_id)
        assert caught.value.path == path


def test_an_entry_under_another_name_is_damage(spool):
    spool.put(a_session(0))
    (spool.folder / a_session(0).session_id).rename(spool.folder / a_session(1).session_id)
    with pytest.raises(SpoolDamaged, match=a_session(0).session_id):
        spool.get(a_session(1).session_id)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "", "x", "0" * 36, "00000000-0000-7000-8000-00000000000g", "00000000-0000-7000-8000-000000000000\n"]
)
def test_only_a_uuid_becomes_a_file_name(spool, name):
    for use in (spool.get, lambda name: spool.remove([name])):
        with pytest.raises(ValueError, match="no session id"):
            use(name)


@pytest.mark.fault(65)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_is_told_with_the_folder_and_leaves_nothing(spool, monkeypatch, code):
    spool.put(a_session(0))

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsNotWritable, match=str(spool.folder)):
        spool.put(a_session(1))
    assert [path.name for path in spool.folder.iterdir()] == [a_session(0).session_id]


def test_a_file_in_place_of_the_folder_is_not_writable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    spool = Spool(tmp_path / "file" / "spool")
    with pytest.raises(ResultsNotWritable, match="Cannot write to"):
        spool.put(a_session())
    assert spool.get(a_session().session_id) is None


def test_an_entry_that_cannot_be_read_is_not_an_absent_one(spool):
    (spool.folder / a_session().session_id).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="Cannot read"):
        spool.get(a_session().session_id)
