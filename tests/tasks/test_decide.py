"""Decisions in a lake: written once, for what has changed; and what another policy would flip."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import process_time

import polars as pl
import pytest

from connectors.lake.names import policy_name
from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from judged_lakes import BUCKET, RUN, START, fill, fill_with_many, held, identity_of, result
from moderation.errors import ConfigurationError
from moderation.identity import object_key_id
from moderation.policy_file import PolicyError, parse_policy
from tasks.decide import STARTER, decide, difference, find_policy, read_policy
from tasks.records import Run
from tasks.verify import verify

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
ALLOWING = parse_policy(
    """
name = "ours"
[[rules]]
id = "loud"
when = "music_pct > 50"
decide = "block"
reason = "loud"
[[rules]]
id = "rest"
when = "true"
decide = "allow"
reason = "quiet"
""",
    "ours.toml",
)
PLACE_OF_B = (identity_of("b"), object_key_id(BUCKET, "b"), "default", BUCKET, "e1")
STRICTER = parse_policy(ALLOWING.text.replace("> 50", "> 20").replace("quiet", "very quiet"), "stricter.toml")


@pytest.fixture
def results(tmp_path):
    return FolderStore(tmp_path / "results")


def run(number: int = 0) -> Run:
    return Run(f"20261121T08{number:04d}Z-abcdef", "default", NOW + timedelta(minutes=number))


def decided(results, told=ALLOWING, number: int = 0, now: datetime | None = None):
    of = run(number)
    return decide(results, partial(connect, results.url), of, told, now or of.started_at)


def ask(results, query: str) -> list[tuple]:
    with connect(results.url) as lake:
        return lake.execute(query).fetchall()


def files(results) -> list[str]:
    return list(results.list("decisions/"))


def test_every_object_is_decided_once_and_again_only_when_something_changed(results):
    fill(results, result("a", music_pct=90.0), result("b", music_pct=30.0))
    first = decided(results)
    assert (first.objects, first.by_decision, first.changes.rows()) == (
        2,
        {"allow": 1, "block": 1},
        [(None, "allow", 1), (None, "block", 1)],
    )
    assert files(results) == [first.file]
    again = decided(results, number=1)
    assert (again.by_decision, again.changes.height, again.file) == (first.by_decision, 0, None)
    assert files(results) == [first.file], "nothing is written again"

    flipped = decided(results, STRICTER, 2)
    assert flipped.changes.rows() == [("allow", "block", 1)]
    assert len(files(results)) == 2
    columns = "key, decision, rule_id, reason, policy, policy_hash, decided_at, run_id, object_id, object_key_id, org, bucket, etag"
    assert ask(results, f"SELECT {columns} FROM decisions WHERE run_id = '{run(2).run_id}'") == [
        ("b", "block", "loud", "loud", "ours", STRICTER.policy.policy_hash, run(2).started_at, run(2).run_id, *PLACE_OF_B)
    ]
    latest = "SELECT key, decision, policy_hash FROM decisions_latest ORDER BY key"
    assert ask(results, latest) == [("a", "block", ALLOWING.policy.policy_hash), ("b", "block", STRICTER.policy.policy_hash)]


@pytest.mark.torture
def test_new_evidence_and_new_objects_are_changes(results):
    fill(results, result("a", music_pct=90.0), result("b", music_pct=90.0))
    decided(results)
    fill(results, result("a", number=1, music_pct=95.0), result("c", music_pct=1.0), name="p0002")
    assert decided(results, number=1).changes.rows() == [("block", "block", 1), (None, "allow", 1)]
    assert ask(results, "SELECT key, evidence_sessions FROM decisions_latest ORDER BY key") == [
        ("a", "session-1-music-a"),
        ("b", "session-0-music-b"),
        ("c", "session-0-music-c"),
    ]


def test_a_decision_comes_after_the_one_before_it_though_the_clock_is_behind(results):
    fill(results, result("b", music_pct=30.0))
    decided(results, now=NOW + timedelta(days=1))
    assert decided(results, STRICTER, 1, now=NOW).changes.height == 1
    assert ask(results, "SELECT decision, decided_at FROM decisions_latest") == [("block", NOW + timedelta(days=1, microseconds=1))]
    assert decided(results, STRICTER, 2, now=NOW).file is None


@pytest.mark.torture
def test_a_run_that_decides_twice_keeps_both_files(results):
    """As one that is taken up again does."""
    fill(results, result("a"))
    first = decided(results)
    fill(results, result("b"), name="p0002")
    second = decided(results)
    assert (
        files(results)
        == [first.file, second.file]
        == [
            f"decisions/scan_date=2026-11-21/{run().run_id}-d0001.parquet",
            f"decisions/scan_date=2026-11-21/{run().run_id}-d0002.parquet",
        ]
    )


def test_what_is_only_quarantined_has_its_place_too_and_verify_knows_all_files(results):
    fill(results, result("a"))
    write_rows(results, "quarantine", RUN, START.date(), "plan", [held("bad")])
    decided(results)
    places = dict(ask(results, "SELECT key, object_key_id FROM decisions"))
    assert places == {key: object_key_id(BUCKET, key) for key in ("a", "bad")}
    ours = {"decisions", "_policies"}
    assert [finding for finding in verify(results, NOW, lambda done, of: None).findings if finding.name.split("/")[0] in ours] == []


def test_nothing_is_decided_where_nothing_is_known(results):
    done = decided(results)
    assert (done.objects, done.by_decision, done.file) == (0, {}, None)


def test_the_text_of_a_policy_is_kept_under_its_hash(results):
    fill(results, result("a"))
    decided(results)
    policy_hash = ALLOWING.policy.policy_hash
    assert results.get(policy_name(policy_hash)).decode() == ALLOWING.text
    assert find_policy(results, policy_hash).policy == ALLOWING.policy
    for unknown in ("0123456789abcdef", "../x", "", "Ärger"):
        with pytest.raises(PolicyError, match="neither a policy file nor the hash"):
            find_policy(results, unknown)


@pytest.mark.parametrize("objects", [40])
def test_a_difference_equals_the_join_of_what_both_policies_decide(tmp_path, objects):
    lakes = [FolderStore(tmp_path / name) for name in ("before", "after")]
    for lake in lakes:
        fill_with_many(lake, objects)
    before = read_policy(STARTER)
    after = parse_policy(before.text.replace("music_pct < 10", "music_pct < 60").replace(">= 0.9", ">= 0.2"), "after")
    for lake, told in zip(lakes, (before, after), strict=True):
        decided(lake, told)
    sets = [pl.DataFrame(ask(lake, "SELECT object_id, decision, rule_id FROM decisions"), orient="row") for lake in lakes]
    joined = sets[0].join(sets[1], on="column_0").filter(pl.col("column_1") != pl.col("column_1_right"))
    expected = joined.group_by("column_1", "column_1_right", "column_2", "column_2_right").len()
    found = difference(partial(connect, lakes[0].url), "default", before, after)
    counted = found.flips.drop("examples")
    assert sorted(counted.rows()) == sorted(expected.rows())
    assert found.objects == joined.height > 0
    assert list(counted["objects"]) == sorted(counted["objects"], reverse=True)
    assert (found.before_hash, found.after_hash) == (before.policy.policy_hash, after.policy.policy_hash)
    for row in found.flips.iter_rows(named=True):
        assert 0 < len(row["examples"]) <= 5
    assert len(files(lakes[0])) == 1, "nothing is written"


def test_a_file_that_cannot_be_read_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(PolicyError, match=r"gone\.toml cannot be read: No such file"):
        read_policy(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(PolicyError, match="it is not UTF-8"):
        read_policy(tmp_path / "latin.toml")


def test_damaged_results_are_an_error_in_one_line(results):
    fill(results, result("a"))
    [name] = results.list("music_summaries/")
    results.put(name, b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(ConfigurationError, match="soundcheck verify") as caught:
        decided(results)
    assert "\n" not in str(caught.value)


@pytest.mark.torture
def test_a_million_summaries_are_judged_again_in_under_20_seconds(tmp_path):
    """1.5 million summaries of a million objects, 2.5 million segments, a million earlier decisions, and another policy.

    In CPU-seconds of all threads, which is more than the time it takes: what else the machine does is not counted.
    """
    results = FolderStore(tmp_path / "results")
    fill_with_many(results, 1_000_000)
    told = read_policy(STARTER)
    after = replace(told, policy=parse_policy(told.text.replace(">= 0.9", ">= 0.7"), "after").policy)
    assert decided(results, told).objects == 1_000_000
    started = process_time()
    done = decided(results, after, 1)
    seconds = process_time() - started
    assert 0 < done.changes["objects"].sum() < 100_000
    assert seconds < 20, f"{seconds:.1f} CPU-seconds"
    started = process_time()
    found = difference(partial(connect, results.url), "default", told, after)
    assert process_time() - started < 40, "two policies are judged"
    assert found.objects == done.changes.filter(pl.col("before") != pl.col("after"))["objects"].sum()


def test_a_policy_that_an_editor_on_windows_has_written_is_read(tmp_path):
    (tmp_path / "ours.toml").write_bytes(b"\xef\xbb\xbf" + STARTER.read_bytes().replace(b"\n", b"\r\n"))
    assert read_policy(tmp_path / "ours.toml").policy == read_policy(STARTER).policy


def test_a_policy_kept_in_the_results_reads_nothing_but_what_is_registered(results):
    fill(results, result("a"))
    [name] = results.list("music_summaries/")
    text = STARTER.read_text().replace("primary_label = 'neither'", f"(SELECT count(*) FROM glob('{results.address(name)}')) > 0")
    results.put("_policies/0123456789abcdef.toml", text.encode())
    with pytest.raises(PolicyError, match=r"rule 'nothing-to-hear': .*Permission Error"):
        find_policy(results, "0123456789abcdef")
