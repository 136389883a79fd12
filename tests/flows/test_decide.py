"""`soundcheck decide` and `soundcheck review` at the command line, as a flow, and as the last step of a scan."""

import csv
import json
from pathlib import Path

import pytest

from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.local_velma.switches import HEAD_BYTES, Rule, Script, Switches, Verdict, digest_of
from flows.cli import run
from flows.deciding import decide_results
from flows.decisions import decide_lake
from flows.demo import demonstrate
from flows.request import Request
from flows.settings import fixed_settings
from flows.wiring import check_before_start, now
from judged_lakes import fill, result
from moderation.outcomes import ExitCode
from moderation.policy_file import PolicyError
from tasks.decide import STARTER
from tasks.sample_catalogue import sample_catalogue

KEY = "canary-5f0e9d1c7b"
AUDIO = Path(__file__).parents[3] / "shared" / "audio"
STRICT = """
name = "strict"
[[rules]]
id = "all-music"
when = "primary_label = 'music'"
decide = "block"
reason = "no music here"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with results of three objects, and two policies."""
    monkeypatch.chdir(tmp_path)
    rows = [result("a.mp3"), result("=cmd().mp3", primary_label="neither"), result("x\x1b[31m.mp3", primary_label="speech", music_pct=1.0)]
    fill(FolderStore(tmp_path / "out"), *rows)
    starter_in(tmp_path)
    (tmp_path / "strict.toml").write_text(STRICT)
    return tmp_path


def said_as_json(capsys, *arguments: str, exit_code: ExitCode = ExitCode.OK) -> dict:
    assert run([*arguments, "--results", "out", "--json"]) == exit_code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_starter_policy_is_printed_as_it_is(capsys):
    assert run(["decide", "--starter"]) == ExitCode.OK
    assert capsys.readouterr().out == STARTER.read_text(encoding="utf-8")


def test_decisions_are_told_and_written_once(place, capsys):
    said = said_as_json(capsys, "decide", "--policy", "starter.toml")
    assert (said["objects"], said["decisions"], said["written"]) == (3, {"allow": 1, "review": 2}, 3)
    assert {(rule["rule_id"], rule["decision"]) for rule in said["rules"]} == {
        ("speech", "allow"),
        ("nothing-to-hear", "review"),
        ("no_rule", "review"),
    }
    assert (place / "out" / "v1" / said["file"]).is_file()
    assert said_as_json(capsys, "decide", "--policy", "starter.toml")["written"] == 0
    assert run(["decide", "--policy", "starter.toml", "--results", "out"]) == ExitCode.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "nothing-to-hear" in shown
    assert "no decision has changed, and nothing was written" in shown


@pytest.mark.torture
def test_a_difference_names_what_flips_by_which_rule_and_keys_as_text(place, capsys):
    said_as_json(capsys, "decide", "--policy", "starter.toml")
    policy_hash = said_as_json(capsys, "decide", "--policy", "strict.toml", "--diff", "starter.toml")["before"]
    for before in ("starter.toml", policy_hash):
        said = said_as_json(capsys, "decide", "--policy", "strict.toml", "--diff", before)
        assert said["objects"] == 2
        assert [(flip["before"], flip["after"], flip["rule_after"], flip["examples"]) for flip in said["flips"]] == [
            ("allow", "review", "no_rule", ["x\x1b[31m.mp3"]),
            ("review", "block", "all-music", ["a.mp3"]),
        ]
    assert run(["decide", "--policy", "strict.toml", "--diff", "starter.toml", "--results", "out"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "all-music" in shown
    assert "\x1b[31m" not in shown
    assert len(list((place / "out" / "v1" / "decisions").rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["decide"], 78, "no policy: give --policy"),
        (["decide", "--policy", "gone.toml"], 78, "cannot be read"),
        (["decide", "--policy", "strict.toml", "--diff", "feedfeedfeedfeed"], 78, "neither a policy file nor the hash"),
        (["decide", "--starter", "--diff", "x"], 2, "--diff"),
        (["review", "import", "gone.csv"], 2, "cannot be read"),
        (["review", "export", "q.txt"], 2, "neither .csv nor .parquet"),
        (["review", "export", "q.csv", "--where", "nonsense = 1"], 2, "nonsense"),
        (["review", "serve", "--where", "nonsense = 1"], 2, "nonsense"),
        (["review", "serve", "--host", "0.0.0.0"], 78, "--remote"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(place, capsys, arguments, code, says):
    assert run([*arguments, "--results", "out"]) == code
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_sheet_goes_out_and_its_answers_count(place, capsys):
    said_as_json(capsys, "decide", "--policy", "starter.toml")
    assert said_as_json(capsys, "review", "export", "queue.csv")["rows"] == 2
    with Path("queue.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows} == {"a.mp3", "'=cmd().mp3"}
    with Path("back.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"answer": "block" if row["key"] == "a.mp3" else "", "note": "heard it"} for row in rows)
    said = said_as_json(capsys, "review", "import", "back.csv", "--reviewer", "ada")
    assert (said["new"], said["repeated"]) == (1, 0)
    assert said_as_json(capsys, "review", "import", "back.csv", "--reviewer", "ada")["repeated"] == 1
    assert said_as_json(capsys, "review", "export", "queue.parquet")["rows"] == 1
    [of_rule] = said_as_json(capsys, "review", "precision")["rules"]
    assert of_rule | {"month": ""} == {
        "month": "",
        "org": "default",
        "rule_id": "no_rule",
        "expected": "block",
        "agreed": 1,
        "disagreed": 0,
        "agreement": 1.0,
    }
    assert run(["review", "precision", "--results", "out"]) == ExitCode.OK
    assert "100.0 %" in capsys.readouterr().out


@pytest.mark.torture
async def test_the_flow_ends_as_the_command_does(place):
    state = await decide_lake.fn("starter.toml", "out")
    assert (state.name, "1 allow, 2 review; 3 decisions are new" in state.message) == ("Completed", True)
    state = await decide_lake.fn("gone.toml", "out")
    assert (state.name, "cannot be read" in state.message) == ("Configuration", True)


@pytest.mark.torture
async def test_a_scan_decides_at_its_end_and_again_when_more_is_known(world, make_wav, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(STRICT.replace("primary_label = 'music'", "key like 'one%'"))
    world.put("one.wav", make_wav(1.0))
    report = await world.scan(policy=policy, endpoints=["music"])
    assert (report.exit_code, report.counts()["decisions"]) == (ExitCode.OK, {"block": 1})
    assert world.ask("SELECT key, decision, rule_id, run_id FROM decisions_latest") == [("one.wav", "block", "all-music", report.run_id)]
    world.put("two.wav", make_wav(1.5))
    again = await world.scan(policy=policy, endpoints=["music"])
    assert again.counts()["decisions"] == {"block": 1, "review": 1}
    assert world.ask(f"SELECT key FROM decisions WHERE run_id = '{again.run_id}'") == [("two.wav",)]
    assert (await world.scan(endpoints=["music"])).counts()["decisions"] == {}, "without a policy nothing is decided"


async def test_a_policy_that_cannot_be_used_is_refused_before_anything_is_paid(world, make_wav, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(STRICT.replace("primary_label", "primary_lable"))
    world.put("one.wav", make_wav(1.0))
    settings = world.settings.model_copy(update={"policy": policy})
    for start in (lambda: world.scan(policy=policy), lambda: check_before_start(settings, Request(("s3://catalogue/",)))):
        with pytest.raises(PolicyError, match=r"line 5: rule 'all-music': .*primary_lable"):
            await start()
    assert world.velma.journal.counts["connect"] == 0
    assert not (world.results / "v1" / "runs").exists()


def starter_in(folder: Path) -> Path:
    """The starter policy without its sample."""
    policy = folder / "starter.toml"
    policy.write_text(STARTER.read_text(encoding="utf-8").replace("hold_out = 1", "hold_out = 0"))
    return policy


def decided(folder: Path) -> dict[str, tuple[str, str, str | None]]:
    """The decisions of that policy over results."""
    decide_results(fixed_settings(results=str(folder / "results"), policy=starter_in(folder)), now)
    return decisions_in(folder)


def decisions_in(folder: Path) -> dict[str, tuple[str, str, str | None]]:
    """By key what is decided, by which rule, and what held it back."""
    with connect(str(folder / "results")) as lake:
        rows = lake.execute("SELECT key, decision, rule_id, held_back FROM decisions_now").fetchall()
    return {key: (decision, rule, held_back) for key, decision, rule, held_back in rows}


RIGHT = {
    "speech": {("allow", "speech", None)},
    "music": {("allow", "made-by-people", None)},
    "mixed": {("allow", "speech", None), ("allow", "made-by-people", None)},
    "neither": {("review", "nothing-to-hear", None)},
    "unknown": {("review", "no_rule", "insufficient_evidence")},
    "undecodable": {("review", "no_rule", "quarantined")},
}


@pytest.mark.torture
async def test_the_starter_policy_decides_the_sample_catalogue_right(tmp_path):
    await demonstrate(tmp_path / "results", None, direct=True)
    found = decided(tmp_path)
    for sample in sample_catalogue():
        truth = sample.expected if sample.expected in RIGHT else sample.truth
        if truth in RIGHT:
            assert found.pop(sample.key) in RIGHT[truth], sample.key
    assert found == {}, "what is no audio has no decision"


@pytest.mark.torture
@pytest.mark.skipif(not (AUDIO / "catalogue.csv").is_file(), reason="the folder of real audio is not part of the project")
async def test_the_starter_policy_decides_real_audio_right(tmp_path):
    await demonstrate(tmp_path / "results", AUDIO, direct=True)
    found = decided(tmp_path)
    with (AUDIO / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        truths = {row["file"]: row["truth"] for row in csv.DictReader(file)}
    assert "empty.wav" not in found
    wrong = {key: (truths[key], found[key]) for key in found if found[key] not in RIGHT[truths[key]]}
    assert {key for key in wrong if truths[key] not in {"speech", "music"}} == set()
    assert len(wrong) <= 0.15 * len(found), wrong


@pytest.mark.torture
async def test_scripted_verdicts_lead_where_the_rules_say(world, make_wav, tmp_path):
    expected = {
        "long.wav": (14.0, Verdict.AI_VOCAL_MUSIC, ("block", "ai-voices-certain", None)),
        "short.wav": (7.0, Verdict.AI_VOCAL_MUSIC, ("review", "ai-voices-certain", "too_little_audio")),
        "played.wav": (14.0, Verdict.AI_INSTRUMENTAL, ("review", "ai-instruments", None)),
        "made.wav": (14.0, Verdict.NOT_AI_MUSIC, ("allow", "made-by-people", None)),
    }
    bodies = {key: make_wav(seconds, 200.0 + 50 * number) for number, (key, (seconds, *_)) in enumerate(expected.items())}
    for key, body in bodies.items():
        world.put(key, body)
    rules = tuple(Rule(key, verdict) for key, (_, verdict, _) in expected.items())
    script = Script(rules, {key: digest_of(body[:HEAD_BYTES]) for key, body in bodies.items()})
    policy = starter_in(tmp_path)
    async with local_velma(Organisation(frozenset({KEY})), detector="stub", switches=Switches(script=script)) as velma:
        report = await world.scan(velma_url=velma.url, policy=policy)
    assert report.counts()["decisions"] == {"allow": 1, "block": 1, "review": 2}, "the last step of the scan"
    assert decisions_in(tmp_path) == {key: end for key, (_, _, end) in expected.items()}
    [span] = world.ask("SELECT evidence_start_ms, evidence_end_ms FROM decisions_now WHERE key = 'long.wav'")
    assert span == (0, 12_000), "the windows with voices"
