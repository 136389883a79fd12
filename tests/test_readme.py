"""What README.md promises is what there is."""

import re
from pathlib import Path

import yaml

from flows.settings import Settings, load_settings
from moderation.outcomes import ExitCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def cells(heading: str) -> set[str]:
    """The names in backticks of the first column of the table behind a heading; plain text where there are none."""
    table = README.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    firsts = [row.split("|")[0 if row is table else 1] for row in f"|{table}".splitlines()[2:]]
    return {name for first in firsts for name in re.findall(r"`([^`]+)`", first) or [first.strip()]}


def test_every_setting_is_in_the_table():
    assert cells("### Settings") == set(Settings.model_fields)


def test_every_exit_code_is_in_the_table():
    assert cells("### Exit codes") == {str(int(code)) for code in ExitCode}


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "setup", "check"} <= named <= targets


def test_the_deployments_name_their_flows_by_dotted_paths():
    deployments = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    names = {"scan", "stream-shard", "backfill", "retry", "verify", "compact", "reconcile", "decide", "overdue"}
    assert {deployment["name"] for deployment in deployments} == names
    for deployment in deployments:
        package, module, flow = deployment["entrypoint"].split(".")
        assert f"async def {flow}(" in (ROOT / package / f"{module}.py").read_text(encoding="utf-8")


def test_every_example_of_a_settings_file_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```toml\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        (tmp_path / "soundcheck.toml").write_text(example, encoding="utf-8")
        assert load_settings().results == "s3://moderation/velma"
