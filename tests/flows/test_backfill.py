"""Backfills: exactly what somebody names is streamed, again only when forced, and a frozen plan is gone on with as it was."""

import pytest

from connectors.lake.query import QueryError
from connectors.local_velma.journal import Journal
from flows.backfill_cli import backfill
from flows.plan import plan_scan
from flows.request import FlowName, Portion, Request
from flows.resuming import request_of
from flows.watch import Watch
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode
from odd_keys import ODD_KEYS
from tasks.progress import Standing

pytestmark = pytest.mark.torture

WHERE = "duration_ms > 1600 and key like 'a/%' and scan_date <= today()"


def named(*sources, **more):
    return Request(tuple(f"s3://catalogue/{source}" for source in sources), flow=FlowName.BACKFILL, **more)


def put_some(world, make_wav):
    for number in range(6):
        world.put(f"{'ab'[number % 2]}/{number}.wav", make_wav(1.0 + number / 5, 200.0 + number))
    world.put("a/raw.s16le", make_wav(2.4)[44:])
    world.put("a/raw.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')


async def test_where_streams_exactly_the_rows_that_duckdb_selects(world, make_wav):
    put_some(world, make_wav)
    await world.scan(endpoints=["music"])
    selected = world.ask(f"SELECT key FROM music_latest WHERE {WHERE} ORDER BY key")
    assert selected == [("a/4.wav",), ("a/raw.s16le",)]
    planned = await plan_scan(world.settings, named(where=WHERE))
    assert planned.counts()["endpoints"]["ai_music"]["sessions"] == 2
    report = await world.scan_request(named(where=WHERE))
    assert (report.exit_code, report.progress.sessions) == (ExitCode.OK, 2)
    assert world.ask("SELECT key FROM ai_music_latest ORDER BY key") == selected
    [(flow, source)] = world.ask(f"SELECT flow, source FROM runs_latest WHERE run_id = '{report.run_id}'")
    assert (flow, source) == ("backfill", f"where {WHERE}")
    below = await world.scan_request(named("b/", where="duration_ms > 1100"))
    assert below.progress.sessions == 3
    assert (await world.scan_request(named(where=WHERE))).progress.sessions == 0


@pytest.mark.fault(81)
async def test_objects_with_odd_keys_are_streamed_known_and_chosen_like_others(world, make_wav):
    """But for those that moto does not take, and that of a folder."""
    keys = [key for key in ODD_KEYS if key != ".." and "\n" not in key and not key.endswith("/")]
    for number, key in enumerate(keys):
        world.put(key, make_wav(1.0, 200.0 + number))
    report = await world.scan(endpoints=["music"])
    assert report.progress.of("music").standings == {Standing.DONE: len(keys)}
    assert {key for (key,) in world.ask("SELECT key FROM music_latest")} == set(keys)
    assert (await world.scan(endpoints=["music"])).progress.sessions == 0
    chosen = Request(flow=FlowName.BACKFILL, where="duration_ms > 0")
    assert (await world.scan_request(chosen, endpoints=["ai_music"])).progress.of("ai_music").standings == {Standing.DONE: len(keys)}


async def test_where_passes_over_results_of_what_was_overwritten_since(world, make_wav):
    for seconds, endpoints in ((1.0, ["ai_music"]), (1.2, ["music"]), (1.4, ["music"])):
        world.put("a.wav", make_wav(seconds))
        await world.scan(endpoints=endpoints)
    report = await world.scan_request(named(where="duration_ms > 0"))
    assert (report.exit_code, report.counts()["objects"], report.progress.sessions) == (ExitCode.OK, 1, 1)
    assert world.ask("SELECT duration_ms FROM ai_music_current") == [(1400,)]
    with pytest.raises(ConfigurationError, match="nothing satisfies"):
        await world.scan_request(named(where="duration_ms < 1100"), endpoints=["ai_music"])


async def test_force_streams_again_what_is_done_and_the_newest_result_counts(world, make_wav):
    put_some(world, make_wav)
    await world.scan("a/", endpoints=["music"])
    before = dict(world.ask("SELECT key, session_id FROM music_latest"))
    report = await world.scan_request(named("a/", portion=Portion(exclude=("*raw*",)), force=True), endpoints=["music"])
    assert (report.exit_code, report.progress.sessions) == (ExitCode.OK, 3)
    after = dict(world.ask("SELECT key, session_id FROM music_latest"))
    assert {key for key in after if after[key] != before[key]} == {"a/0.wav", "a/2.wav", "a/4.wav"}
    assert world.ask("SELECT count(*) FROM music_summaries") == [(7,)]


@pytest.mark.parametrize("force", [False, True])
async def test_a_stopped_backfill_is_gone_on_with_and_streams_exactly_the_rest_of_its_plan(world, make_wav, force):
    put_some(world, make_wav)
    if force:
        await world.scan(endpoints=["music"])
    done = world.velma.journal.counts["done"]
    watch = Watch()
    request = named("a/", "b/", portion=Portion(limit=5), force=force)

    note = Journal.note

    def stop_at_the_second(journal, event, *arguments, **facts):
        note(journal, event, *arguments, **facts)
        if journal.counts["done"] == done + 2:
            watch.terminate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "note", stop_at_the_second)
        stopped = await world.scan_request(request, watch, endpoints=["music"], connections=1)
    assert stopped.exit_code is ExitCode.DRAINED
    first = {key for (key,) in world.ask(f"SELECT key FROM music_summaries WHERE run_id = '{stopped.run_id}'")}
    assert 2 <= len(first) < 5
    world.put("a/00-new.wav", make_wav(1.0, 900.0))  # frozen is frozen: it would be the first of a new plan

    settings = world.settings.model_copy(update={"endpoints": ["music"]})
    again = request_of(settings, stopped.run_id)
    with pytest.raises(ConfigurationError, match=r"planned under other settings.*--anyway"):
        await world.scan_request(again, endpoints=["music"], max_session_hours=1.0)
    report = await world.scan_request(again, endpoints=["music"])
    assert (report.exit_code, report.run_id) == (ExitCode.OK, stopped.run_id)  # what the limit left is no rest of this run
    assert report.progress.sessions == 5 - len(first)
    of_run = world.ask(f"SELECT key FROM music_summaries WHERE run_id = '{stopped.run_id}' ORDER BY key")
    assert of_run == [(f"{folder}.wav",) for folder in ("a/0", "a/2", "a/4")] + of_run[3:]
    assert len(set(of_run)) == len(of_run) == 5
    assert (report.counts()["done"], report.counts()["pending"]) == (5, 2)


async def test_what_cannot_be_gone_on_with_or_chosen_is_said(world, make_wav, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world.put("one.wav", make_wav(1.0))
    report = await world.scan_request(named(""))
    with pytest.raises(ConfigurationError, match="came to its end"):
        request_of(world.settings, report.run_id)
    with pytest.raises(ConfigurationError, match="there is no run nobody"):
        request_of(world.settings, "nobody")
    with pytest.raises(ConfigurationError, match="nothing satisfies"):
        await world.scan_request(named(where="music_pct > 1000"))
    with pytest.raises(QueryError, match="columns of music_current are"):
        await world.scan_request(named(where="no_such_column = 1"))
    with pytest.raises(ConfigurationError, match="only s3://"):
        Request(("./here",), where="true")
    with pytest.raises(ConfigurationError, match="give nothing else"):
        backfill("s3://catalogue/", resume="x")


async def test_a_retry_releases_what_it_names_and_streams_it(world, make_wav):
    for key in ("one.flac", "two.flac"):
        world.put(key, b"fLaC" + bytes(range(256)) * 8)
    assert (await world.scan()).counts()["quarantined"] == 2
    world.put("one.flac", make_wav(1.0))  # by another name, and mended: the next scan takes it as what it is
    report = await world.scan_request(Request(flow=FlowName.RETRY, where="key = 'two.flac' and reason = 'undecodable'"))
    assert (report.exit_code, report.counts()["objects"]) == (ExitCode.QUARANTINED, 1)
    assert world.ask("SELECT key, event FROM quarantine WHERE endpoint = 'music' ORDER BY happened_at, event") == [
        ("one.flac", "quarantined"),
        ("two.flac", "quarantined"),
        ("two.flac", "released"),
        ("two.flac", "quarantined"),
    ]
    assert world.ask(f"SELECT flow FROM runs_latest WHERE run_id = '{report.run_id}'") == [("retry",)]
    with pytest.raises(ConfigurationError, match="nothing satisfies"):
        await world.scan_request(Request(flow=FlowName.RETRY, where="reason = 'too_long'"))
