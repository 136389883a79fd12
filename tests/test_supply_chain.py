"""What is installed where soundcheck runs is told: as a list for machines, and with its licences for people."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PINS = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
COPYLEFT = re.compile(r"\b(A?GPL|SSPL|BUSL|Commons Clause)\b", re.IGNORECASE)


def made(what: str) -> str:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "packages", what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table() -> list[list[str]]:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.partition("|---|")[2].splitlines()[1:]]


def test_the_table_of_licences_has_what_is_locked():
    assert [(name, version) for name, version, *_ in table()] == PINS, "make licences"


def test_every_package_says_its_licence():
    assert [name for name, _, licence, _ in table() if licence in {"", "unknown"}] == []


def test_nothing_is_locked_that_asks_for_the_code_of_its_users():
    """A package that leaves the choice is no such one: text-unidecode is under the Artistic License, too."""
    strict = [
        (name, licence) for name, _, licence, _ in table() if COPYLEFT.search(licence) and " / " not in licence and " OR " not in licence
    ]
    assert strict == []


def test_the_list_for_machines_has_what_is_locked():
    told = json.loads(made("sbom"))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert [(each["name"], each["version"]) for each in told["components"]] == PINS
    references = [each["bom-ref"] for each in told["components"]]
    assert len(set(references)) == len(references) == len(told["dependencies"][0]["dependsOn"])
    assert told["metadata"]["component"]["name"] == "soundcheck"


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", ".ci/setup"])
def test_nothing_calls_out_by_itself(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not re.search(r"^(check|test|setup|lock-check):.*\baudit\b", text, re.MULTILINE)
    assert file == "Makefile" or "audit" not in text
