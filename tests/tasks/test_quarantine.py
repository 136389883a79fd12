"""What is held, and what a release makes of it, by the log in a lake and the plans over it."""

from datetime import timedelta

import polars as pl
import pytest

from connectors.lake.packages import write_rows
from connectors.lake.predicates import QueryError
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from moderation.catalogue import AudioObject
from moderation.formats import AudioFormat
from moderation.outcomes import Reason
from planning import START, Bench
from tasks.quarantine import held_now, release
from tasks.records import Run, quarantine_row

RUN = Run("20261121T080000Z-000000", "acme", START)
LATER = Run("20261122T080000Z-111111", "acme", START + timedelta(days=1))


@pytest.fixture
def results(tmp_path):
    return FolderStore(tmp_path / "results")


def hold(results, *rows, run=RUN):
    """Write rows into the log: key, reason and what is different."""
    events = []
    for number, (key, reason, more) in enumerate(rows):
        item = AudioObject("audio", key, f"e{number}", 10, START, version_id=f"v{number}")
        facts = {"detail": None, "run_id": run.run_id, "org": run.org, "happened_at": run.started_at + timedelta(seconds=number)}
        events.append(quarantine_row(item, more.pop("endpoint", "music"), "p1", reason, **facts | more))
    write_rows(results, "quarantine", run.run_id, run.scan_date, "plan", events)


def held(results, org="acme", **where) -> pl.DataFrame:
    with connect(results.url) as lake:
        return held_now(lake, org, **where)


def keys(results, org="acme", **where) -> list[str]:
    return held(results, org, **where)["key"].to_list()


def events(results, run) -> list[tuple]:
    with connect(results.url) as lake:
        query = "SELECT key, endpoint, event, reason, detail, version_id, happened_at FROM quarantine WHERE run_id = ? ORDER BY ALL"
        return lake.execute(query, [run.run_id]).fetchall()


def test_what_is_held_comes_newest_first_and_only_where_the_predicate_is_true(results):
    hold(
        results,
        ("a", Reason.UNDECODABLE, {"detail": "what was said"}),
        ("b", Reason.TOO_LONG, {}),
        ("c", Reason.UNDECODABLE, {"endpoint": "ai_music"}),
    )
    assert keys(results) == ["c", "b", "a"]
    assert keys(results, where="reason = 'undecodable'") == ["c", "a"]
    assert keys(results, where="detail <> 'anything'") == ["a"], "no answer is no yes"
    assert keys(results, where="endpoint = 'music' and happened_at > '2026-11-21 08:00:00+00'") == ["b"]
    assert held(results).row(0, named=True) | {"object_id": "o"} == {
        "org": "acme",
        "endpoint": "ai_music",
        "bucket": "audio",
        "key": "c",
        "version_id": "v2",
        "etag": "e2",
        "object_id": "o",
        "params_hash": "p1",
        "reason": "undecodable",
        "detail": None,
        "run_id": RUN.run_id,
        "happened_at": START + timedelta(seconds=2),
    }


def test_a_release_says_who_and_why_and_keeps_the_reason(results):
    hold(results, ("a", Reason.UNDECODABLE, {}), ("b", Reason.TOO_LONG, {}), ("a", Reason.UNDECODABLE, {"endpoint": "ai_music"}))
    release(results, held(results, where="endpoint = 'music' and key = 'a'"), LATER, "ada", "the label sent it again")
    assert events(results, LATER) == [
        ("a", "music", "released", "undecodable", "ada: the label sent it again", "v0", LATER.started_at),
    ]
    assert [(row["key"], row["endpoint"]) for row in held(results).to_dicts()] == [("a", "ai_music"), ("b", "music")]


def test_a_release_that_is_repeated_changes_nothing(results):
    hold(results, ("a", Reason.UNDECODABLE, {}))
    rows = held(results)
    release(results, rows, LATER, "ada", "why")
    before = events(results, LATER)
    release(results, rows, LATER, "ada", "why")
    assert events(results, LATER) == before
    release(results, held(results), Run("20261123T080000Z-222222", "acme", START + timedelta(days=2)), "ada", "again")
    assert len(list(results.list("quarantine/"))) == 2, "nothing is held, so nothing is written"


def test_a_release_counts_though_the_clock_of_its_host_is_behind(results):
    hold(results, ("a", Reason.UNDECODABLE, {"happened_at": LATER.started_at + timedelta(hours=1)}))
    release(results, held(results), LATER, "ada", "why")
    assert keys(results) == []


def test_one_organisation_does_not_see_or_release_what_is_anothers(results):
    hold(results, ("ours", Reason.UNDECODABLE, {}), ("theirs", Reason.UNDECODABLE, {"org": "globex"}))
    assert keys(results, where="org = 'globex' or true") == ["ours"]
    release(results, held(results), LATER, "ada", "why")
    assert (keys(results), keys(results, "globex")) == ([], ["theirs"])


def test_nothing_is_held_in_a_lake_without_a_quarantine(results):
    assert held(results).is_empty()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("reson = 'undecodable'", "reson"),
        ("reason = ", "cannot be used"),
        ("", "cannot be used"),
        ("reason", "is no condition"),
        ("true; drop view quarantined_now", "cannot be used"),
        ("key in (select content from read_text('/etc/hostname'))", "cannot be used"),
    ],
)
def test_a_predicate_that_is_none_is_an_error_and_releases_nothing(results, where, said):
    hold(results, ("a", Reason.UNDECODABLE, {}))
    with pytest.raises(QueryError, match=said) as raised:
        held(results, where=where)
    assert "\n" not in str(raised.value)
    assert keys(results) == ["a"]


@pytest.mark.parametrize("same_run", [False, True])
async def test_what_is_released_is_planned_again_and_held_again_while_it_is_still_wrong(tmp_path, same_run):
    """Also by the run that releases it: all that it plans has the instant of its start."""
    bench = Bench(tmp_path / "audio", FolderStore(tmp_path / "results"))
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    await bench.plan()
    assert (await bench.plan()).progress.newly_quarantined == 0
    release(bench.results, held(bench.results, where="endpoint = 'music'"), Run("r", "acme", START + timedelta(minutes=2)), "ada", "why")
    assert [row["endpoint"] for row in held(bench.results).to_dicts()] == ["ai_music"]
    bench.runs = 2 if same_run else 3
    third = await bench.plan()
    assert third.progress.of("music").standings["quarantined"] == 1
    assert bench.ask("SELECT endpoint, count(*) FROM quarantine WHERE event = 'quarantined' GROUP BY ALL ORDER BY ALL") == [
        ("ai_music", 1),
        ("music", 2),
    ]
    assert held(bench.results)["endpoint"].sort().to_list() == ["ai_music", "music"], "released, and held again since"


async def test_what_is_released_and_well_by_now_is_streamed(tmp_path):
    bench = Bench(tmp_path / "audio", FolderStore(tmp_path / "results"))
    bench.put("a.s16le", b"\0\0" * 800)
    bench.put("a.s16le.json", b'{"audio_format": "s16le", "sample_rate": 8000, "num_channels": 1}')
    row = (await bench.plan()).of("a.s16le")
    assert AudioFormat(row["audio_format"]) is AudioFormat.S16LE
    item = next(item for item in await bench.objects() if item.key == "a.s16le")
    facts = {"detail": "S3 did not give it", "run_id": "x", "org": "acme", "happened_at": START}
    write_rows(
        bench.results,
        "quarantine",
        "x",
        START.date(),
        "plan",
        [quarantine_row(item, "music", row["params_hash"], Reason.SOURCE_ERROR, **facts)],
    )
    assert ((await bench.plan()).streamed("music"), bench.runs) == ([], 2)
    release(bench.results, held(bench.results), Run("y", "acme", START + timedelta(minutes=2)), "ada", "S3 is back")
    assert (await bench.plan()).streamed("music") == ["a.s16le"]
