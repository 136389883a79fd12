"""A conversation in SQL, with a reader that says what was written for it."""

import io

import pytest
from rich.console import Console

from connectors.lake.query import connect
from connectors.lake.schemas import datasets
from connectors.lake.views import views
from tasks.sql_shell import CONTINUED, PROMPT, converse


@pytest.fixture
def talk(tmp_path):
    """Say lines (an exception class is raised); what was prompted, answered, complained and printed."""

    def said(*lines):
        prompts, answers, complaints, console = [], [], [], Console(file=io.StringIO(), width=300)
        script = iter([*lines, EOFError])

        def read(prompt):
            prompts.append(prompt)
            line = next(script)
            if not isinstance(line, str):
                raise line
            return line

        with connect(str(tmp_path)) as lake:
            converse(lake, read, lambda answer: answers.append(list(answer.rows)), complaints.append, console)
        return prompts, answers, complaints, console.file.getvalue()

    return said


def test_a_query_goes_on_until_its_semicolon(talk):
    prompts, answers, complaints, _ = talk("select 1 as a,", "", "  2 as b", ";", "  ", "select ';' as c; ")
    assert answers == [[(1, 2)], [(";",)]]
    assert prompts == [PROMPT, CONTINUED, CONTINUED, CONTINUED, PROMPT, PROMPT, PROMPT]
    assert complaints == []


def test_what_is_wrong_is_one_line_and_the_conversation_goes_on(talk):
    _, answers, complaints, _ = talk("selct 1;", "select error('boom');", "drop view runs;", "select 1;")
    assert answers == [[(1,)]]
    assert [len(complaint.splitlines()) for complaint in complaints] == [1, 1, 1]
    assert "boom" in complaints[1]


def test_tables_are_told_with_what_they_are(talk):
    *_, printed = talk(".tables")
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.strip())
    assert {name: text.strip() for name, text in lines.items()} == {
        what.name: what.description for what in (*datasets().values(), *views())
    }


def test_quit_ends_it_and_another_command_is_told(talk):
    prompts, _, complaints, _ = talk(".help", ".quit", "select 1;")
    assert len(prompts) == 2
    assert ".tables" in complaints[0]


def test_an_interrupt_drops_what_was_typed(talk):
    prompts, answers, _, _ = talk("select 1", KeyboardInterrupt, "select 2;")
    assert answers == [[(2,)]]
    assert prompts == [PROMPT, CONTINUED, PROMPT, PROMPT]
