"""Predicates that people write about results (`--cascade`, `--where`): one condition in DuckDB's SQL over the columns of one view.

A predicate is parsed as an expression, never put into a statement: it can neither end one nor begin another. It may ask other tables of
the lake in a subquery, and nothing outside the lake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from connectors.lake.query import QueryError, connect_to_nothing, one_line

HOLDS = "holds"
"""The column of `judge` that has the answer."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition such as `music_pct >= 10`, over a table or view of the lake. Every method raises QueryError that says what is wrong."""

    view: str
    condition: str

    def check(self) -> None:
        """Find out what is wrong with it before there is any result to ask, or before anything is paid for."""
        with connect_to_nothing() as lake:
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
        hint = f". The columns of {self.view} are {', '.join(columns)}" if isinstance(error, duckdb.BinderException) and columns else ""
        return QueryError(f"the predicate {self.condition!r} cannot be used: {one_line(error)}{hint}")
