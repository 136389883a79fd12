"""Predicates that people write about results (`--cascade`, `--where`): one condition in DuckDB's SQL over the columns of one view.

A predicate is parsed as an expression, never put into a statement: it can neither end one nor begin another. It may ask other tables of
the lake in a subquery, and nothing outside the lake.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer

import duckdb
import pyarrow as pa

from connectors.lake.query import QueryError, connect_to_nothing, one_line

HOLDS = "holds"
"""The column of `judge` that has the answer."""
CHECK_SECONDS = 20.0
"""How long a condition may take where there is nothing to ask: it takes none of them, unless it never ends."""


@contextmanager
def at_most(lake: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Let what is asked in the block take so long: then it is an InterruptException. A recursive query may have no end."""
    timer = Timer(seconds, lake.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition such as `music_pct >= 10`, over a table or view of the lake. Every method raises QueryError that says what is wrong."""

    view: str
    condition: str

    def check(self) -> None:
        """Find out what is wrong with it before there is any result to ask, or before anything is paid for."""
        with connect_to_nothing() as lake, at_most(lake, CHECK_SECONDS):
            self.judge(lake, [])

    def judge(self, lake: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> pa.Table:
        """These columns of every row of the view, and `holds`: true, false, or null where the condition has no answer."""
        try:
            columns_of_view = [duckdb.ColumnExpression(name) for name in columns]
            rows = self._bound(lake).select(*columns_of_view, self._expression().alias(HOLDS))
            table: pa.Table = rows.to_arrow_table()
        except duckdb.Error as error:
            raise self._refused(error) from error
        return table

    def rows(self, lake: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> pa.Table:
        """These columns of the rows that it holds for."""
        try:
            table: pa.Table = self._bound(lake).filter(self._expression()).select(*map(duckdb.ColumnExpression, columns)).to_arrow_table()
        except duckdb.Error as error:
            raise self._refused(error) from error
        return table

    def object_ids(self, lake: duckdb.DuckDBPyConnection) -> pa.Table:
        """The objects that it holds for: distinct (object_id)."""
        try:
            rows = self._bound(lake).filter(self._expression()).select(duckdb.ColumnExpression("object_id")).distinct()
            table: pa.Table = rows.to_arrow_table()
        except duckdb.Error as error:
            raise self._refused(error) from error
        return table

    def expression(self, lake: duckdb.DuckDBPyConnection) -> duckdb.Expression:
        """The condition as a part of a larger query, once it is sure that it is one over the rows of the view."""
        self._bound(lake)
        return self._expression()

    def _bound(self, lake: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The view, once it is sure that the condition is one over its rows: nothing is read for that."""
        rows = lake.view(self.view)
        try:
            rows.filter(self._expression())  # refuses what is not about one row: aggregates, windows, UNNEST
            types = [str(kind) for kind in rows.select(self._expression()).types]
        except duckdb.Error as error:
            raise self._refused(error, rows.columns) from error
        if types != ["BOOLEAN"]:
            raise QueryError(f"the predicate {self.condition!r} is no condition: it gives {', '.join(types)}, not one answer of yes or no")
        return rows

    def _expression(self) -> duckdb.Expression:
        return duckdb.SQLExpression(self.condition)

    def _refused(self, error: duckdb.Error, columns: Sequence[str] = ()) -> QueryError:
        if isinstance(error, duckdb.InterruptException):
            return QueryError(f"the predicate {self.condition!r} cannot be used: it takes too long, or has no end")
        hint = f". The columns of {self.view} are {', '.join(columns)}" if isinstance(error, duckdb.BinderException) and columns else ""
        return QueryError(f"the predicate {self.condition!r} cannot be used: {one_line(error)}{hint}")
