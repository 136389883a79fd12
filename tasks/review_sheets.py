"""Sheets: what people review as CSV or Parquet, on the way out to them and back.

Keys and notes are anybody's. A cell that a spreadsheet would take for a formula gets an apostrophe in front, which is taken away again when
the sheet comes back: whatever is in a cell comes back as it was.
"""

import csv
from collections.abc import Iterator
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from connectors.durable import replacing
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula in a spreadsheet; the last four are the wide forms of East Asian writing."""
_INVISIBLE = ("\t", "\r", "\n", "\0")
"""What some spreadsheets drop in front of one."""
_APOSTROPHE = "'"
_DELIMITERS = ",;\t"
"""Which one spreadsheets write depends on the country."""


class AnswersRefused(ConfigurationError):
    """A sheet of answers that cannot be taken: nothing of it was."""

    exit_code = ExitCode.USAGE


def neutral(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return _APOSTROPHE + cell if _is_formula(cell) else cell


def as_meant(cell: str) -> str:
    """What `neutral` was given; any other cell as it is."""
    return cell[1:] if cell.startswith(_APOSTROPHE) and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """Whether that is what it is behind any apostrophes: to put one in front changes nothing of that, and so can be undone."""
    bare = cell.lstrip(_APOSTROPHE)
    return bare.startswith(_INVISIBLE) or bare.lstrip().startswith(_FORMULA)


def write_sheet(rows: pl.DataFrame, file: Path) -> None:
    """Write rows as the end of the file's name says, in place of an earlier one.

    Raises AnswersRefused for another end, and ResultsNotWritable.
    """
    kind = _kind(file)
    with replacing(file) as out:
        fill_sheet(rows, out, kind)


def fill_sheet(rows: pl.DataFrame, out: BinaryIO, kind: str) -> None:
    """Write rows as ".csv" or ".parquet"."""
    if kind == ".parquet":
        rows.write_parquet(out)
        return
    text = TextIOWrapper(out, encoding="utf-8", newline="")
    # every cell between quotes: what separates cells in one country is part of a key in another
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(rows.columns)
    for row in rows.iter_rows():
        writer.writerow([_as_text(value) for value in row])
    text.flush()
    text.detach()


def read_sheet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a sheet, each with its number: in CSV as spreadsheets count, the header being 1; in Parquet from 1.

    Cells of CSV are text, and None where they are empty. Raises AnswersRefused for what is no sheet.
    """
    try:
        if _kind(file) == ".parquet":
            yield from enumerate(pl.read_parquet(file).iter_rows(named=True), 1)
            return
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = text.readline()
            text.seek(0)
            reader = csv.DictReader(text, delimiter=max(_DELIMITERS, key=header.count), strict=True)
            for number, row in enumerate(reader, 2):
                if None in row:
                    raise AnswersRefused(f"{file}, row {number}: it has more cells than the header")
                yield number, {name: as_meant(cell) if cell else None for name, cell in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise AnswersRefused(f"{file} cannot be read: {why}") from error


def _as_text(value: object) -> object:
    if isinstance(value, str):
        return neutral(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _kind(file: Path) -> str:
    if file.suffix.lower() not in {".csv", ".parquet"}:
        raise AnswersRefused(f"{file.name} is neither .csv nor .parquet: name a file that ends so")
    return file.suffix.lower()
