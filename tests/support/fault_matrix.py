"""The fault matrix: each row of tests/faults.toml with the tests that provoke it. As a program it writes their table into the page."""

import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
CATALOGUE = TESTS / "faults.toml"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- the fault matrix: `make faults` writes it -->\n", "<!-- the end of the fault matrix -->\n"


@dataclass(frozen=True)
class FaultRow:
    """A row of the catalogue: what goes wrong, what soundcheck does then, and the words by which a person sees it, if there are any."""

    id: int
    fault: str
    reaction: str
    shown: str = ""


@dataclass
class Provokers:
    """The files of the tests that provoke each row, below tests/: those that `make check` runs, and those of `make torture` alone."""

    check: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    torture: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, tests: Iterable[pytest.Item]) -> "Provokers":
        """Those of some tests, by their mark `fault`."""
        found = cls()
        for test in tests:
            where = found.torture if test.get_closest_marker("torture") else found.check
            for mark in test.iter_markers("fault"):
                for row in mark.args:
                    where[row].add(test.path.relative_to(TESTS).with_suffix("").as_posix())
        return found

    @property
    def rows(self) -> set[int]:
        """The rows that any test provokes."""
        return {*self.check, *self.torture}


class Collector:
    """A plugin of pytest: takes note of all tests before any is deselected."""

    def __init__(self) -> None:
        self.found = Provokers()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """All that were collected."""
        self.found = Provokers.of(items)


def catalogue() -> list[FaultRow]:
    """The rows, in the order of their numbers."""
    return [FaultRow(**row) for row in tomllib.loads(CATALOGUE.read_text())["fault"]]


def section(found: Provokers) -> str:
    """The matrix as Markdown, between its two marks."""
    rows = catalogue()
    in_check = sum(row.id in found.check for row in rows)
    provoked = sum(row.id in found.rows for row in rows)
    lines = [
        BEGIN,
        f"{provoked} of {len(rows)} rows of `tests/faults.toml` are provoked by tests, {in_check} in `make check`, the others in\n",
        "`make torture` alone. Names are of files below `tests/`.\n\n",
        "| | fault | what soundcheck does | shown as | in `make check` | in `make torture` |\n|---|---|---|---|---|---|\n",
        *(_line(row, found) for row in rows),
        END,
    ]
    return "".join(lines)


def _line(row: FaultRow, found: Provokers) -> str:
    cells = (str(row.id), row.fault, row.reaction, row.shown, _names(found.check, row.id), _names(found.torture, row.id))
    return f"| {' | '.join(cells)} |\n"


def _names(where: Mapping[int, set[str]], row: int) -> str:
    return ", ".join(f"`{name}`" for name in sorted(where.get(row, ())))


def written() -> str:
    """The matrix as the page has it."""
    page = PAGE.read_text()
    return page[page.index(BEGIN) : page.index(END) + len(END)]


def main() -> int:
    """Collect every test, and write the matrix into the page; 1 where a row has none."""
    collector = Collector()
    if code := pytest.main(["--collect-only", "-qq", "-m", "", str(TESTS)], plugins=[collector]):
        return int(code)
    PAGE.write_text(PAGE.read_text().replace(written(), section(collector.found)))
    without = [row.id for row in catalogue() if row.id not in collector.found.rows]
    if without:
        sys.stderr.write(f"no test provokes the rows {without}\n")
    return bool(without)


if __name__ == "__main__":
    sys.exit(main())
