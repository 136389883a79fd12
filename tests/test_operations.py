"""What docs/operations.md and docs/security.md promise is what there is."""

import re
from pathlib import Path

import pytest

from flows.cli import app
from flows.maintain import FOUND
from flows.report import COMPLETED, INCOMPLETE
from flows.settings import Settings
from moderation.outcomes import ExitCode, StopCause

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("text", [OPERATIONS, SECURITY], ids=["operations", "security"])
INTERRUPTED = "130"
WITH_QUARANTINE = "CompletedWithQuarantine"


def rows(heading: str) -> list[list[str]]:
    table = OPERATIONS.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_end_is_in_the_table_with_what_to_do():
    ends = {code: (states, todo) for code, states, todo in rows("## What an end means")}
    assert set(ends) == {str(int(code)) for code in ExitCode} | {INTERRUPTED}
    assert all(todo for _, todo in ends.values())
    states = {state for told, _ in ends.values() for state in re.findall(r"`(\w+)`", told)}
    assert states == {cause.value for cause in StopCause} | {COMPLETED, INCOMPLETE, FOUND, WITH_QUARANTINE}
    for cause in StopCause:
        assert f"`{cause.value}`" in ends[str(int(cause.exit_code))][0]


@BOTH
def test_every_command_it_names_exists(text):
    named = set(re.findall(r"(?:^    |`|&& |workers )soundcheck ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert named - {name for name in app if not name.startswith("-")} == set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`|&& )make ([a-z-]+)", text, re.MULTILINE)) <= targets


@BOTH
def test_every_file_it_names_exists(text):
    links = re.findall(r"\]\((?!#|http)([^)#]+)", text)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    files = re.findall(r"`((?:deployments|docs|connectors|tests|moderation)/[\w./@-]+)", text)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


@BOTH
def test_every_setting_it_names_exists(text):
    variables = {name.lower() for name in re.findall(r"\bSOUNDCHECK_([A-Z_]+)", text)}
    assert variables - set(Settings.model_fields) == set()
