"""Every row of the fault catalogue is provoked by a test, and docs/reliability.md says by which."""

import pytest

from fault_matrix import Collector, Provokers, catalogue, section, written

ROWS = 82


@pytest.fixture
def found(request) -> Provokers:
    """Who provokes what, where all tests were collected, as `make test` does."""
    if request.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
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


pytest_plugins = ["pytester"]


def test_a_row_without_a_test_is_seen_and_torture_is_told_apart(pytester, monkeypatch):
    monkeypatch.setattr("fault_matrix.TESTS", pytester.path)
    pytester.makepyfile(
        test_some="""
        import pytest

        @pytest.mark.fault(1, 2)
        def test_one(): ...

        @pytest.mark.parametrize("n", [0, pytest.param(1, marks=pytest.mark.fault(3))])
        @pytest.mark.torture
        def test_two(n): ...
        """
    )
    collector = Collector()
    pytester.inline_run("--collect-only", "-m", "not torture", "-p", "no:cacheprovider", plugins=[collector])
    assert (dict(collector.found.check), dict(collector.found.torture)) == ({1: {"test_some"}, 2: {"test_some"}}, {3: {"test_some"}})
    line = section(collector.found).splitlines()[7]
    assert line.startswith("| 4 |")
    assert line.endswith("|  |  |")
