"""Faults as values: what their specs say, and what is no fault."""

import re
import tomllib
from pathlib import Path

import pytest

from connectors.local_velma.faults import COUNTED, FAULTS, PARSERS, SHORTS, Moment, Role, faults_help, parse_faults, specs_of
from connectors.local_velma.faulty_messages import CHANGES, SAYINGS
from moderation.errors import ConfigurationError

CATALOGUE = Path(__file__).parents[3].parent / "shared" / "docs" / "faults.toml"
SAID = {
    "CODE": "4003",
    "CODE[:TEXT]": "4003:try again",
    "STATUS[:TEXT]": "503:30",
    "COUNT": "3",
    "MS": "-500",
    "SECONDS": "2.5",
    "WORD": "new",
}
ORGANISATIONS_OWN = {"key", "limit", "credits", "hours", "rotate"}
"""Hints of the catalogue that are no faults but rules of the organisation, changed through it."""
SWITCHES_OWN = {"v2"}
"""Hints that are switches of the server: `newer_windows`."""


def usages():
    """Every kind of fault with every form of value, at every place that it can have."""
    for kind in FAULTS.values():
        form = kind.form.rstrip("?")
        values = [f"={SAID.get(form, form)}"] if form else [""]
        if kind.form.endswith("?") and kind.role is not Role.END:
            values.append("")
        for value in values:
            for moment in sorted(kind.places) if kind.at else [None]:
                place = "" if moment is None else f"@{moment}=7" if moment in COUNTED else f"@{moment}"
                yield kind.name + value + place


@pytest.mark.parametrize("spec", [*usages()])
def test_a_spec_is_what_it_parses_to(spec):
    (fault,) = parse_faults(spec)
    assert fault.spec == spec
    assert parse_faults(fault.spec) == (fault,)


@pytest.mark.parametrize("kind", [*FAULTS.values()], ids=lambda kind: kind.name)
def test_a_place_that_is_not_said_is_that_of_the_table(kind):
    form = kind.form.rstrip("?")
    (fault,) = parse_faults(kind.name + (f"={SAID.get(form, form)}" if form else ""))
    assert fault.place == kind.at


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("close=4003", (4003, None)),
        ("close=4003:Could not be validated, try again.@end", (4003, "Could not be validated, try again.")),
        ("close=4999:a: b = c", (4999, "a: b = c")),
        ("refuse=302:wss://elsewhere.example/api?x=1", (302, "wss://elsewhere.example/api?x=1")),
        ("abrupt=4029", 4029),
        ("abrupt", None),
        ("null=all", "all"),
        ("pause=0.25", 0.25),
        ("done_off=-2", -2),
        ("label=ai-something", "ai-something"),
    ],
)
def test_values(spec, value):
    (fault,) = parse_faults(spec)
    assert fault.value == value


@pytest.mark.parametrize(
    ("specs", "stands_for"),
    [
        ("", ""),
        (" dup + drop@items=3 ", "dup@items=1+drop@items=3"),
        ("stall_after=5", "stall@items=5"),
        ("revoke_at=2", "revoke@items=2"),
        ("done_delay=0.5", "pause=0.5@done"),
        ("upgrade_then_limit", "pause=0.15@upgrade+close=4029:Monthly usage limit reached.@upgrade"),
        ("abrupt+upgrade_then_limit", "abrupt+pause=0.15@upgrade+close=4029:Monthly usage limit reached.@upgrade"),
    ],
)
def test_several_faults_and_second_names(specs, stands_for):
    assert specs_of(parse_faults(specs)) == stands_for


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("close", "'close' is not in the form close=CODE[:TEXT], with @bytes=N, @done, @end, @items=N, @upgrade"),
        ("close=99", "close=CODE[:TEXT]"),
        ("close=-1", "close=CODE[:TEXT]"),
        ("close=5000", "close=CODE[:TEXT]"),
        ("close=4003@", "close=CODE[:TEXT]"),
        ("close=4003@nowhere", "close=CODE[:TEXT]"),
        ("close=4003@end=4", "close=CODE[:TEXT]"),
        ("stall@items", "'stall@items' is not in the form stall, with"),
        ("dup@done", "'dup@done' is not in the form dup, with @bytes=N, @end, @items=N, @upgrade"),
        ("dup=3", "dup, with"),
        ("done_off=1@items=3", "done_off=COUNT, with @done"),
        ("abrupt@items=3", "abrupt[=CODE], with"),
        ("pause=-1", "pause=SECONDS"),
        ("pause=nan", "pause=SECONDS"),
        ("pause=1e99", "pause=SECONDS"),
        ("null=some", "null[=all]"),
        ("buffer=3@items=1", "'buffer=3@items=1' is not in the form buffer=SECONDS"),
        ("stall_after", "stall_after=COUNT"),
        ("stall_after=x", "'stall_after=x' is not in the form stall_after=COUNT"),
        ("stall_after=5@end", "stall_after=COUNT"),
        ("done_delay=soon", "done_delay=SECONDS"),
        ("upgrade_then_limit=4", "'upgrade_then_limit=4' is not in the form upgrade_then_limit"),
        ("refuse=200", "refuse=STATUS[:TEXT]"),
    ],
)
def test_a_fault_in_the_wrong_form_is_told_the_right_one(spec, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        parse_faults(spec)


@pytest.mark.parametrize("spec", ["nothing", "=", "@end", "Close=4003", "dup drop", "dup+nothing"])
def test_what_is_no_fault_is_told_all_that_are(spec):
    with pytest.raises(ConfigurationError, match="is no fault: known are ") as raised:
        parse_faults(spec)
    assert all(re.search(rf"\b{name}\b", str(raised.value)) for name in (*FAULTS, *SHORTS))


def test_help_has_a_line_for_each():
    lines = faults_help()
    assert [usage.split("=")[0].split("[")[0].split("@")[0] for usage, _ in lines] == [*FAULTS, *SHORTS]
    assert all(does for _, does in lines)


def test_what_says_or_changes_something_says_what():
    assert {kind.name for kind in FAULTS.values() if kind.role is Role.SAY} == SAYINGS.keys()
    assert {kind.name for kind in FAULTS.values() if kind.role is Role.CHANGE} < CHANGES.keys() < FAULTS.keys()
    assert {kind.form.rstrip("?") for kind in FAULTS.values() if kind.form} == PARSERS.keys()
    assert {moment for kind in FAULTS.values() for moment in kind.places} == set(Moment)


@pytest.mark.skipif(not CATALOGUE.exists(), reason="the fault catalogue is not beside this repository")
def test_every_hint_of_the_catalogue_is_known():
    hints = [row["hint"] for row in tomllib.loads(CATALOGUE.read_text())["fault"] if row["hint"].startswith("srv:")]
    words = {re.match(r"\w+", word.strip())[0] for hint in hints for word in hint.removeprefix("srv:").split(" with ")[0].split(",")}
    assert words <= {*FAULTS, *SHORTS} | ORGANISATIONS_OWN | SWITCHES_OWN
