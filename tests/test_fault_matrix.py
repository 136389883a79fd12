"""Every row of the fault catalogue is provoked by a test, and docs/reliability.md says by which."""

from pathlib import Path

import pytest

from fault_matrix import TESTS, Collector, Provokers, catalogue, section, written

ROWS = 82


@pytest.fixture
def found(request) -> Provokers:
    """Who provokes what, where all tests were collected, as `make test` does; a process of xdist is asked for them by name."""
    if {Path(asked).resolve() for asked in request.config.args} != {TESTS}:
        pytest.skip("only some of the tests were collected")
    collector = request.config.pluginmanager.get_plugin("fault_matrix")
    assert isinstance(collector, Collector)
    return collector.found


def test_rows_have_the_numbers_of_the_catalogue():
    assert [row.id for row in catalogue()] == [*range(1, ROWS + 1)]
    assert all(row.fault and row.reaction for row in catalogue())


def test_every_row_is_provoked_and_every_mark_is_of_a_row(found):
    assert found.rows == {row.id for row in catalogue()}


def test_the_page_has_the_matrix_as_it_is(found):
    assert written() == section(found), "run `make faults`"


def test_a_row_that_no_test_provokes_is_seen():
    some = Provokers()
    some.check[1] = {"one/test_a", "one/test_b"}
    some.torture[1] = some.torture[3] = {"two/test_c"}
    _, heading, _, _, _, _, *lines = section(some).splitlines()
    assert heading.startswith("2 of 82 rows ")
    assert " 1 in `make check`" in heading
    assert [line.split("|")[-3:-1] for line in lines[:3]] == [
        [" `one/test_a`, `one/test_b` ", " `two/test_c` "],
        ["  ", "  "],
        ["  ", " `two/test_c` "],
    ]
