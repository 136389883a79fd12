"""A policy over a lake: which rule fires, what holds its decision back, and what a condition can read."""

import re
from functools import partial

import duckdb
import pytest

from connectors.lake.evidence import figure_names
from connectors.lake.judging import Judging
from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.schemas import ENDPOINT_DATASETS
from judged_lakes import RUN, START, fill, held, identity_of, result, segment, session_of
from moderation.outcomes import ExitCode
from moderation.policy_file import PolicyError, PolicyText, parse_policy

ai_result = partial(result, endpoint="ai_music")


def policy(*rules: str, head: str = "") -> PolicyText:
    """A policy of rules such as `block: music_pct > 3`, called r0, r1, and so on; what follows a comma-space-brace is more of its keys."""
    told = [f'name = "test"\n{head}']
    for number, rule in enumerate(rules):
        decide, _, when = rule.partition(": ")
        when, _, more = when.partition(" // ")
        told.append(f'[[rules]]\nid = "r{number}"\ndecide = "{decide}"\nwhen = """{when}"""\nreason = "because {number}"\n{more}')
    return parse_policy("\n".join(told), "test.toml")


@pytest.fixture
def judged(lake):
    """The decisions of a policy over the lake, by key."""

    def judging(told: PolicyText, org: str = "default", columns: str = "decision, rule_id, held_back") -> dict[str, tuple]:
        with connect(lake.url) as connection:
            table = Judging(told, org).judge(connection)
            rows = connection.execute(f"SELECT key, {columns} FROM {table}").fetchall()
        assert len({key for key, *_ in rows}) == len(rows)
        return {key: tuple(values) for key, *values in rows}

    return judging


ALLOW_ALL = policy("allow: true")


def test_the_first_rule_that_holds_counts_whatever_its_priority(lake, judged):
    fill(lake, result("a", music_pct=5.0), result("b", music_pct=50.0), result("c", music_pct=95.0))
    told = policy("block: music_pct > 90", "allow: music_pct > 40 // priority = 1", "review: music_pct > 0 // priority = 9")
    assert judged(told, columns="decision, rule_id, reason, priority") == {
        "a": ("review", "r2", "because 2", 9),
        "b": ("allow", "r1", "because 1", 1),
        "c": ("block", "r0", "because 0", 0),
    }


def test_what_no_rule_is_for_and_what_has_no_answer_is_reviewed(lake, judged):
    fill(lake, result("a"), result("b", music_pct=None))
    assert judged(policy("allow: music_pct > 90", "allow: music_pct < 10")) == {
        "a": ("review", "no_rule", None),
        "b": ("review", "no_rule", None),
    }
    assert judged(policy("allow: primary_verdict <> 'ai-vocal-music'"))["a"] == ("review", "no_rule", None), "null is no match"


UNTRUSTED = {
    "sound": ({}, None),
    "empty": ({"evidence": "insufficient"}, "insufficient_evidence"),
    "both": ({"evidence": "insufficient", "quality_flags": "gap"}, "insufficient_evidence"),
    "flagged": ({"quality_flags": "gap,partial"}, "quality_flags"),
    "new label": ({"primary_label": "whale song"}, "unknown_label"),
    "unknown": ({"primary_label": "unknown"}, "unknown_label"),
    "no label": ({"primary_label": None}, "unknown_label"),
}
UNTRUSTED_AI = {
    "ai empty": ({"evidence": "insufficient"}, "insufficient_evidence"),
    "ai flagged": ({"quality_flags": "gap"}, "quality_flags"),
    "ai new verdict": ({"primary_verdict": "ai-yodel"}, "unknown_label"),
}


@pytest.mark.parametrize("decide", ["allow", "block"])
def test_evidence_that_cannot_be_trusted_is_left_to_a_person(lake, judged, decide):
    """What one endpoint says is enough."""
    of_music = [result(key, **facts) for key, (facts, _) in UNTRUSTED.items()]
    fill(lake, *of_music, *(row for key, (facts, _) in UNTRUSTED_AI.items() for row in (result(key), ai_result(key, **facts))))
    expected = {key: ("review" if why else decide, "r0", why) for key, (_, why) in (UNTRUSTED | UNTRUSTED_AI).items()}
    assert judged(policy(f"{decide}: true")) == expected


def test_what_is_quarantined_is_reviewed_unless_its_endpoint_has_a_result(lake, judged):
    fill(lake, result("one"), result("both"), ai_result("both"))
    events = [held("one", "ai_music"), held("both", "ai_music"), held("none"), held("none", "ai_music"), held("freed")]
    write_rows(lake, "quarantine", RUN, START.date(), "plan", [*events, held("freed", event="released", happened_at=START.replace(hour=9))])
    assert judged(ALLOW_ALL) == {
        "one": ("review", "r0", "quarantined"),
        "both": ("allow", "r0", None),
        "none": ("review", "r0", "quarantined"),
    }
    assert judged(policy("block: music_quarantine_reason = 'undecodable'"))["none"] == ("review", "r0", "quarantined")


def test_a_rule_asks_for_audio_and_gets_no_decision_without(lake, judged):
    fill(lake, result("long"), result("short", covered_ms=9_999), result("part"), ai_result("part", covered_ms=8_000))
    told = policy("block: true // min_evidence = 10", "allow: true")
    assert judged(told) == {
        "long": ("block", "r0", None),
        "short": ("review", "r0", "too_little_audio"),
        "part": ("review", "r0", "too_little_audio"),
    }


@pytest.mark.torture
def test_the_newest_results_are_judged_and_each_version_by_itself(lake, judged):
    fill(lake, result("a", music_pct=99.0), result("a", number=1, music_pct=1.0), name="p0001")
    fill(lake, ai_result("a", vocal_ai_confidence=0.9), name="p0001")
    assert judged(policy("block: music_pct > 90", "allow: vocal_ai_confidence = 0.9"), columns="rule_id, evidence_sessions") == {
        "a": ("r1", f"{session_of('a', 'music', 1)},{session_of('a', 'ai_music')}")
    }
    fill(lake, result("a", number=2, etag="e2", music_pct=99.0), name="p0002")
    with connect(lake.url) as connection:
        table = Judging(policy("block: music_pct > 90", "allow: true"), "default").judge(connection)
        found = dict(connection.execute(f"SELECT object_id, decision FROM {table}").fetchall())
    assert found == {identity_of("a"): "allow", identity_of("a", "e2"): "block"}


@pytest.mark.torture
def test_one_organisation_is_judged(lake, judged):
    fill(lake, result("ours", org="acme"), result("theirs", org="it's"))
    assert (judged(ALLOW_ALL, "acme").keys(), judged(ALLOW_ALL, "it's").keys(), judged(ALLOW_ALL)) == ({"ours"}, {"theirs"}, {})


def test_groups_of_the_key_are_columns(lake, judged):
    fill(lake, *(result(key) for key in ("label-a/x.mp3", "label-b/x.mp3", "x.mp3", "o'hara/x.mp3")))
    told = policy("block: label = 'label-a'", "allow: label is null", head="key_pattern = '^(?P<label>[^/]+)/'")
    found = {key: rule for key, (rule,) in judged(told, columns="rule_id").items()}
    assert found == {"label-a/x.mp3": "r0", "label-b/x.mp3": "no_rule", "x.mp3": "r1", "o'hara/x.mp3": "no_rule"}
    quoting = policy("block: label = 'o''hara'", head="key_pattern = '''^(?P<label>o'[^/]+)/'''")
    assert judged(quoting)["o'hara/x.mp3"][0] == "block"


def test_segments_add_up_and_those_of_the_newest_session_only(lake, judged):
    parts = [
        segment("a", "music", 0, 3_000, number=1),
        segment("a", "music+speech", 3_000, 10_000, number=1),
        segment("a", "neither", 10_000, 12_000, number=1),
        segment("a", "music", 0, 99_000),
    ]
    fill(lake, result("a"), result("a", number=1), result("b"), segments=parts)
    with connect(lake.url) as connection:
        query = "SELECT key, music_segments, music_segments_ms, music_longest_ms, speech_longest_ms, ai_vocal_segments FROM evidence_latest"
        assert sorted(connection.execute(query).fetchall()) == [("a", 2, 10_000, 7_000, 7_000, None), ("b", 0, 0, 0, 0, None)]
    assert judged(policy("block: music_longest_ms > 5000", "allow: music_longest_ms = 0"), columns="decision") == {
        "a": ("block",),
        "b": ("allow",),
    }


def test_the_evidence_is_the_longest_segment_of_the_sound_and_the_first_of_equal_ones(lake, judged):
    keys = ("music", "speech", "neither", "ai_vocal", "none")
    parts = [
        part
        for key in keys
        for part in (
            segment(key, "speech", 0, 9_000),
            segment(key, "music", 9_000, 12_000),
            segment(key, "music+speech", 15_000, 18_000),
            segment(key, "music", 30_000, 90_000, number=7),
            segment(key, "ai_vocal", 4_000, 8_000, endpoint="ai_music"),
        )
    ]
    fill(lake, *(each(key) for key in keys for each in (result, ai_result)), segments=parts)
    of_sounds = [f"review: key = '{key}' // evidence = \"{key}\"" for key in keys[:-1]]
    assert judged(policy(*of_sounds, "review: true"), columns="evidence_start_ms, evidence_end_ms") == {
        "music": (9_000, 12_000),
        "speech": (0, 9_000),
        "neither": (None, None),
        "ai_vocal": (4_000, 8_000),
        "none": (None, None),
    }


@pytest.mark.torture
def test_what_is_held_out_is_the_same_share_of_what_is_allowed_each_time(lake, judged):
    keys = [f"k{number}" for number in range(400)]
    fill(lake, *(result(key, music_pct=10.0 if number % 3 else 90.0) for number, key in enumerate(keys)))

    def held_out(*rules: str, percent: float) -> set[str]:
        found = judged(policy(*rules, head=f"hold_out = {percent}"))
        assert all(decision == "review" for decision, _, held_back in found.values() if held_back == "hold_out")
        return {key for key, (_, _, held_back) in found.items() if held_back == "hold_out"}

    few, many = held_out("allow: true", percent=10), held_out("allow: true", percent=30)
    assert 15 < len(few) < 70
    assert 80 < len(many) < 160
    assert few < many
    assert held_out("block: music_pct > 50", "allow: true", percent=30) == {key for key in many if int(key[1:]) % 3}
    assert held_out("allow: true // hold_out = 10", percent=50) == few, "a rule has its own"
    assert held_out("block: key = 'k1'", "allow: true", percent=100) == set(keys) - {"k1"}


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("music_share > 3", r'"music_share" not found.* columns of .* are object_id, .*music_pct.*ai_vocal_longest_ms.*label'),
        ("music_pct", "gives DOUBLE, not one answer"),
        ("music_pct > 'loud'", "Could not convert"),
        ("music_pct >", "syntax error"),
        ("true; DROP VIEW music_latest", "more than one statement"),
        ("true) OR (true", "syntax error"),
        ("count(*) > 1", "aggregate"),
        ("exists (FROM read_text('/etc/passwd'))", "disabled by configuration"),
        ("exists (FROM 'outside.parquet')", "disabled by configuration"),
        ("getenv('HOME') = ''", ""),
        ("exists (FROM outside)", "does not exist"),
    ],
)
def test_a_condition_that_is_none_or_reads_elsewhere_is_refused_with_its_line(condition, says):
    outside = [1]  # noqa: F841 - DuckDB would look for it here
    told = policy("allow: false", f"block: {condition}", head="key_pattern = '^(?P<label>[^/]+)/'")
    line = told.text.splitlines().index(f'when = """{condition}"""') + 1
    with pytest.raises(PolicyError, match=rf"^test\.toml, line {line}: rule 'r1': .*({says})") as caught:
        Judging(told, "default").check()
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert "\n" not in str(caught.value)


@pytest.mark.torture
def test_a_condition_may_ask_other_tables_of_the_lake(lake, judged):
    fill(lake, result("a"), result("b"))
    write_rows(lake, "quarantine", RUN, START.date(), "plan", [held("b", happened_at=START, event="released")])
    assert judged(policy("allow: object_id not in (select object_id from quarantine)"), columns="decision") == {
        "a": ("allow",),
        "b": ("review",),
    }


def test_what_only_shows_in_the_rows_is_said_of_its_rule(lake):
    fill(lake, result("a"))
    told = policy("allow: false", "allow: CAST(key AS INTEGER) > 3")
    Judging(told, "default").check()
    with connect(lake.url) as connection, pytest.raises(PolicyError, match=r"^test\.toml, line 12: rule 'r1': .*Could not convert"):
        Judging(told, "default").judge(connection)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?P<key>.*)", "there is a column key already"),
        ("(?P<label>a(?=b))", "invalid perl operator"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_its_line(pattern, says):
    told = policy("allow: true", head=f"key_pattern = '{pattern}'")
    with pytest.raises(PolicyError, match=rf"^test\.toml, line 2: key_pattern: .*{re.escape(says)}"):
        Judging(told, "default").check()


@pytest.mark.torture
def test_conditions_change_nothing_in_the_lake(lake):
    fill(lake, result("a"))
    with connect(lake.url) as connection:
        before = connection.execute("SHOW TABLES").fetchall()
        Judging(ALLOW_ALL, "default", "one").judge(connection)
        Judging(ALLOW_ALL, "default", "two").judge(connection)
        assert {name for (name,) in connection.execute("SHOW TABLES").fetchall()} - {name for (name,) in before} >= {"one", "two"}
        with pytest.raises(duckdb.Error):
            connection.execute("SET enable_external_access = true")


def test_figures_keep_their_names_unless_an_endpoint_before_has_them():
    assert figure_names("music")["frame_count"] == "frame_count"
    names = [name for endpoint in ENDPOINT_DATASETS for name in figure_names(endpoint).values()]
    assert len(set(names)) == len(names)


ENDLESS = "(WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 5 FROM t) SELECT count(*) FROM t) > 0"
ENDLESS_OVER_ROWS = ENDLESS.replace("SELECT 1", "SELECT length(key)").replace("FROM t)", "FROM t WHERE i IS NOT NULL)", 1)


def test_a_condition_without_an_end_is_refused_with_its_line(monkeypatch):
    monkeypatch.setattr("connectors.lake.judging.CHECK_SECONDS", 0.5)
    with pytest.raises(PolicyError, match=r"^test.toml, line 6: rule 'r0': .*no end$"):
        Judging(policy(f"allow: {ENDLESS}"), "default").check()


def test_conditions_that_take_too_long_over_the_results_come_to_an_end(lake, monkeypatch):
    monkeypatch.setattr("connectors.lake.judging.JUDGING_SECONDS", 0.5)
    fill(lake, result("a"))
    with connect(lake.url) as connection, pytest.raises(PolicyError, match="have not come to an end within"):
        Judging(policy(f"allow: {ENDLESS_OVER_ROWS}"), "default").judge(connection)


@pytest.mark.parametrize("condition", ["random() < 0.5", "music_pct > 50 or random() < 0.5 -- a sample", "uuid()::VARCHAR > object_id"])
def test_a_condition_that_would_decide_otherwise_each_time_is_refused(condition):
    with pytest.raises(PolicyError, match=r"^test.toml, line 6: rule 'r0': .*random"):
        Judging(policy(f"review: {condition}"), "default").check()


@pytest.mark.parametrize(
    "condition", ["last_modified > now() - INTERVAL 7 DAY", "object_id IN (SELECT object_id FROM segments)", "true -- all"]
)
def test_a_condition_that_decides_alike_on_the_same_day_is_none_of_those(condition):
    Judging(policy(f"review: {condition}"), "default").check()
