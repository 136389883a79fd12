"""A conversation in SQL at a terminal, one query after another: what `soundcheck sql` is without a query."""

from collections.abc import Callable

import duckdb
from rich.console import Console
from rich.table import Table

from connectors.lake.query import QueryError
from connectors.lake.schemas import datasets
from connectors.lake.views import views
from tasks.query import Answer, ask

PROMPT, CONTINUED = "soundcheck> ", "       ...> "


def converse(
    lake: duckdb.DuckDBPyConnection,
    read: Callable[[str], str],
    show: Callable[[Answer], None],
    complain: Callable[[str], None],
    console: Console,
) -> None:
    """Answer queries, each ended by a semicolon at the end of a line, until .quit or the end of what is read.

    read is `input` or alike: it takes a prompt, and raises EOFError at the end; a KeyboardInterrupt drops what was typed or is computed.
    show has an answer to be read once; complain, what was wrong with a query, in one line.
    """
    typed: list[str] = []
    while True:
        try:
            line = read(CONTINUED if typed else PROMPT)
            if not typed and line.startswith("."):
                if line.strip() == ".quit":
                    return
                _obey(line.strip(), complain, console)
            elif typed or line.strip():
                typed.append(line)
            if typed and line.rstrip().endswith(";"):
                query = "\n".join(typed)
                typed.clear()
                show(ask(lake, query))
        except QueryError as error:
            complain(str(error))
        except KeyboardInterrupt:
            typed.clear()
            console.print()
        except EOFError:
            console.print()
            return


def _obey(command: str, complain: Callable[[str], None], console: Console) -> None:
    if command != ".tables":
        complain(f"{command} is none of .tables and .quit; a query ends with a semicolon")
        return
    shown = Table.grid(padding=(0, 2))
    for dataset in datasets().values():
        shown.add_row(dataset.name, dataset.description)
    for view in views():
        shown.add_row(view.name, view.description)
    console.print(shown, highlight=False)
