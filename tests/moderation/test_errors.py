"""The tree of errors: its scopes, its sentences, and that the facts of a session survive a process boundary."""

import ast
import copy
import inspect
import pickle
import re
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation import errors
from moderation.errors import (
    BadParameters,
    Phase,
    Scope,
    SessionError,
    SoundcheckError,
    SourceArchived,
    SourceChanged,
    SourceError,
    SourceGone,
    first_of_group,
)
from moderation.outcomes import ExitCode, Reason

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^(?P<place>[ |`-]*)(?P<name>[A-Z]\w+) +(?P<scope>\w+|\(its own\)) {2,}\S")

maybe_text = st.none() | st.text(max_size=40)
session_errors = st.builds(
    SessionError,
    st.text(max_size=40),
    phase=st.sampled_from(Phase),
    http_status=st.none() | st.integers(100, 599),
    close_code=st.none() | st.integers(1000, 4999),
    close_reason=maybe_text,
    text=maybe_text,
    retry_after=st.none() | st.floats(0, 3600),
    protocol=maybe_text,
)


class StalledSession(SessionError):
    """A kind of its own, as a connector may define one."""


def documented():
    """Name, depth and scope of every row of the tree in the docstring."""
    rows = [match for line in errors.__doc__.splitlines() if (match := ROW.match(line))]
    return {row["name"]: (len(row["place"]), row["scope"]) for row in rows}


def defined():
    """Every class of soundcheck that is a SoundcheckError, as its source says: importing all of it would take seconds."""
    classes = {
        node.name: ([base.id for base in node.bases if isinstance(base, ast.Name)], ".".join(path.relative_to(ROOT).with_suffix("").parts))
        for folder in ("moderation", "connectors", "tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }

    def is_ours(name):
        return name == "SoundcheckError" or any(is_ours(base) for base in classes.get(name, ([], ""))[0])

    return {name: getattr(import_module(module), name) for name, (_, module) in classes.items() if is_ours(name)}


DEFINED = defined()


def facts(error):
    return {**vars(error), "kind": type(error), "args": error.args, "said": str(error)}


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    assert documented().keys() == DEFINED.keys() - {"SoundcheckError"}


def test_every_error_has_the_scope_that_the_tree_says():
    scopes = {name: kind.scope for name, kind in DEFINED.items() if kind not in {SoundcheckError, SessionError}}
    assert scopes == {name: scope for name, (_, scope) in documented().items() if scope != "(its own)"}
    assert set(scopes.values()) <= set(Scope)


def test_children_stand_under_their_parents():
    parents, above = {}, {}
    for name, (depth, _) in documented().items():
        above[depth] = name
        parents[name] = next((above[d] for d in sorted(above, reverse=True) if d < depth), "SoundcheckError")
        above = {d: n for d, n in above.items() if d <= depth}
    assert parents == {name: DEFINED[name].__base__.__name__ for name in documented()}


def test_every_error_says_in_its_docstring_what_it_is():
    assert all(inspect.getdoc(kind) and inspect.getdoc(kind) != inspect.getdoc(kind.__base__) for kind in DEFINED.values())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigurationError, ExitCode.CONFIGURATION),
        (errors.AccessDeniedError, ExitCode.ACCESS_DENIED),
        (errors.UnreachableError, ExitCode.UNREACHABLE),
        (errors.ResultsNotWritable, ExitCode.CANNOT_WRITE),
        (errors.LeaseLost, ExitCode.CONFIGURATION),
    ],
)
def test_an_error_that_ends_the_program_knows_the_exit_code(kind, code):
    assert kind("why").exit_code is code


def test_what_became_of_an_object_can_be_caught_as_one():
    assert all(issubclass(kind, SourceError) for kind in (SourceArchived, SourceChanged, SourceGone))


@given(session_errors)
def test_a_session_error_survives_pickling_with_all_its_facts(error):
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)
    assert facts(copy.copy(error)) == facts(error)


def test_a_kind_of_session_error_and_its_notes_survive_pickling():
    error = StalledSession("nothing moved", phase=Phase.STREAMING, close_code=1006)
    error.add_note("seen by worker 7")

    back = pickle.loads(pickle.dumps(error))

    assert facts(back) == facts(error)
    assert back.__notes__ == ["seen by worker 7"]


@pytest.mark.parametrize("reason", [Reason.BAD_PARAMETERS, Reason.UNSUPPORTED_RATE])
def test_bad_parameters_keep_their_reason_through_pickling(reason):
    back = pickle.loads(pickle.dumps(BadParameters("12 kHz", reason)))
    assert (str(back), back.reason) == ("12 kHz", reason)


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "it ended while streaming"),
        ({"close_code": 4029}, "it ended while streaming (close code 4029)"),
        ({"http_status": 403}, "it ended while streaming (HTTP 403)"),
        ({"text": "Insufficient credits."}, "it ended while streaming (service says: Insufficient credits.)"),
        ({"text": ""}, "it ended while streaming"),
        ({"text": "No.", "close_code": 4003}, "it ended while streaming (close code 4003; service says: No.)"),
    ],
)
def test_a_session_error_tells_what_is_known(known, sentence):
    assert str(SessionError("it ended", phase=Phase.STREAMING, **known)) == sentence


@given(session_errors)
def test_the_sentence_names_the_phase_and_every_code(error):
    said = str(error)
    assert error.detail in said
    assert error.phase.value in said
    assert all(str(code) in said for code in (error.http_status, error.close_code) if code is not None)


def raised_from(*grouped):
    """What comes out of first_of_group when this group goes in."""
    with pytest.raises(BaseException) as caught, first_of_group():  # noqa: PT011 - any error may come
        raise BaseExceptionGroup("tasks failed", grouped)
    return caught.value


def test_of_a_group_the_first_error_that_speaks_to_people_is_raised_by_itself():
    told, nested = SourceGone("a.mp3 was deleted"), SourceChanged("b.mp3 was overwritten")
    assert raised_from(KeyError("x"), told, nested) is told
    assert raised_from(KeyError("x"), BaseExceptionGroup("inner", [ValueError("y"), nested]), told) is nested


def test_of_a_group_without_such_an_error_the_first_is_raised():
    first = KeyError("x")
    assert raised_from(BaseExceptionGroup("inner", [first]), ValueError("y")) is first


def test_an_error_without_a_group_goes_through_and_so_does_success():
    alone = SourceGone("a.mp3 was deleted")
    with pytest.raises(SourceGone) as caught, first_of_group():
        raise alone
    assert caught.value is alone
    with first_of_group():
        pass
