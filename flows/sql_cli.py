"""The command `soundcheck sql`: questions to the results, and the results told to other engines."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import LimitedChoice

from moderation.outcomes import ExitCode

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tasks.query import Answer

_FORM = Group("Form of the answer (one of them)", validator=LimitedChoice())
Form = Annotated[bool, Parameter(negative="", group=_FORM)]
IntoFile = Annotated[Path | None, Parameter(group=_FORM)]
Emitted = Annotated[Literal["duckdb", "athena", "trino"] | None, Parameter(group=_FORM)]


def sql(
    query: str | None = None,
    *,
    results: str | None = None,
    csv: Form = False,
    json: Form = False,
    parquet: IntoFile = None,
    emit: Emitted = None,
    duckdb: IntoFile = None,
) -> int:
    """Ask the results in SQL (DuckDB): datasets are tables, and docs/data-dictionary.md has their columns and views.

    Without a query it is a conversation on a terminal, where a query ends with a semicolon and .tables and .quit are known; elsewhere it
    reads one query from standard input.

    Examples:

        soundcheck sql --results out "select key, primary_label, music_pct from music_latest order by music_pct desc"

        soundcheck sql --results out --csv "select * from failures"

        soundcheck sql --results out --parquet segments.parquet "select * from segments_latest"

        soundcheck sql --results s3://moderation/velma --emit athena > velma.sql

        soundcheck sql --results out --duckdb velma.duckdb

    Parameters
    ----------
    query
        One SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE).
    results
        A folder, or s3://bucket/prefix.
    csv
        CSV on standard output.
    json
        A JSON list of objects on standard output.
    parquet
        The answer as a Parquet file of this name.
    emit
        No query: the statements that make tables and views in this engine. Nothing is read; without results they have a placeholder.
    duckdb
        No query: a DuckDB database of this name with tables and views over the results, and no rows of its own.
    """
    from connectors.lake.query import QueryError  # noqa: PLC0415 - every command imports what it alone needs
    from flows.places import results_of  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    settings = load_settings(results=results)
    if query is not None and (emit or duckdb):
        raise QueryError("--emit and --duckdb take no query: they are about all tables and views")
    if emit:
        _emit(emit, results_of(settings) if settings.results else None)
    elif duckdb:
        _write_database(duckdb, results_of(settings))
    else:
        _answer(query, results_of(settings), csv=csv, json=json, parquet=parquet)
    return ExitCode.OK


def _emit(engine: str, url: str | None) -> None:
    from connectors.lake.ddl import script  # noqa: PLC0415
    from connectors.lake.dialects import Engine  # noqa: PLC0415

    sys.stdout.write(script(Engine(engine), url))


def _write_database(file: Path, url: str) -> None:
    from connectors.lake.database import write_database  # noqa: PLC0415
    from connectors.lake.schemas import datasets  # noqa: PLC0415
    from connectors.lake.views import views  # noqa: PLC0415
    from flows.console import stdout  # noqa: PLC0415
    from tasks.query import find_results  # noqa: PLC0415

    find_results(url)
    write_database(file, url)
    stdout.print(
        f"{file} has {len(datasets())} tables and {len(views())} views over {url}, and no rows of its own.", highlight=False, soft_wrap=True
    )


def _answer(query: str | None, url: str, *, csv: bool, json: bool, parquet: Path | None) -> None:
    from connectors.lake.query import QueryError  # noqa: PLC0415
    from flows.console import stdout  # noqa: PLC0415
    from tasks.query import ask, open_results, save_parquet  # noqa: PLC0415

    talks = query is None and sys.stdin.isatty() and sys.stdout.isatty()
    if talks and parquet:
        raise QueryError("--parquet needs a query: the file has one answer")
    if query is None and not talks:
        query = sys.stdin.read()
    show = _shown(csv=csv, json=json)
    with open_results(url) as lake:
        if query is None:
            _converse(lake, show)
        elif parquet:
            stdout.print(f"{parquet} has {save_parquet(lake, query, parquet):,} rows.", highlight=False, soft_wrap=True)
        else:
            show(ask(lake, query))


def _shown(*, csv: bool, json: bool) -> "Callable[[Answer], None]":
    """What shows an answer in the form that is asked for."""
    from flows.console import stdout  # noqa: PLC0415
    from tasks.query import render_table, to_csv, to_json  # noqa: PLC0415

    if json:
        return lambda answer: to_json(answer, sys.stdout)
    if csv:
        return lambda answer: to_csv(answer, sys.stdout)
    return lambda answer: render_table(answer, stdout)


def _converse(lake: "DuckDBPyConnection", show: "Callable[[Answer], None]") -> None:
    from rich.text import Text  # noqa: PLC0415

    from flows.console import stderr, stdout  # noqa: PLC0415
    from tasks.sql_shell import converse  # noqa: PLC0415

    with suppress(ImportError):  # where it is there, input() has a history
        import readline  # noqa: F401, PLC0415
    stdout.print("A query ends with a semicolon. .tables shows what there is to ask, .quit ends.", highlight=False)
    converse(lake, input, show, lambda message: stderr.print(Text(message), style="red", soft_wrap=True), stdout)
