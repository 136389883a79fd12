"""The faults that `soundcheck serve` is told to have."""

import re

import pytest

from connectors.local_velma.fault_script import Scene
from connectors.local_velma.faults import FAULTS, SHORTS
from flows.cli import run
from flows.serve import scene_of
from flows.serve_options import ServeOptions
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode


def test_an_unknown_fault_is_a_matter_of_configuration(capsys):
    assert run(["serve", "--api-key", "k1", "--port", "0", "--fault", "dup", "--fault", "nothing"]) == ExitCode.CONFIGURATION
    assert "'nothing' is no fault" in capsys.readouterr().err


def options(**said: object) -> ServeOptions:
    return ServeOptions(api_key=("k1",), **said)


@pytest.mark.parametrize(
    ("said", "scene"),
    [
        ({}, Scene()),
        ({"fault": ("dup", "buffer=20")}, Scene(standing={"*": "dup+buffer=20"})),
        (
            {"fault_mix": ("0.05:close=4003:try again@end", "0.5:dup+drop"), "fault_seed": 7},
            Scene(mix={"close=4003:try again@end": 0.05, "dup+drop": 0.5}, seed=7),
        ),
    ],
)
def test_what_the_options_ask_for(said, scene):
    assert scene_of(options(**said)) == scene


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"fault": ("nothing",)}, "'nothing' is no fault: known are refuse, close, "),
        ({"fault": ("close",)}, re.escape("'close' is not in the form close=CODE[:TEXT]")),
        ({"fault_mix": ("dup",)}, "--fault-mix takes PROBABILITY:FAULT, as in 0.05:close=1011, not 'dup'"),
        ({"fault_mix": ("0.9:dup", "0.2:drop")}, "probabilities"),
    ],
)
def test_what_they_cannot_ask_for(said, text):
    with pytest.raises(ConfigurationError, match=text):
        scene_of(options(**said))


def test_help_lists_every_fault(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ ?{name}\b", shown, re.MULTILINE) for name in (*FAULTS, *SHORTS))
