"""Whether a Parquet file is what was written: read with its page checksums, then written again and held against itself, byte for byte.

Page checksums say nothing of what lies outside of pages: page headers, bloom filters, page indexes, and the footer with its statistics,
by all of which engines pass rows over. But the same rows give the same bytes: whatever was changed anywhere shows as a difference.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import SEEK_END, RawIOBase
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.lake import schemas
from connectors.lake.columns import Dataset
from connectors.lake.findings import Problem
from connectors.lake.names import Place, members_digest
from connectors.lake.parquet import sink_like, written_here

READER_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError)
"""What Arrow raises at bytes that are no Parquet: a damaged footer can break its reader anywhere."""
_ARROW = re.compile(r"parquet-cpp-arrow version \d+\.\d+\.\d+\S*", re.ASCII)
_FACTS = (schemas.METADATA_DATASET, schemas.METADATA_SCHEMA_VERSION, schemas.METADATA_RUN_ID, schemas.METADATA_PACKAGE)
_FOOTER_END = 8
"""Bytes behind the footer: its length, and four letters."""
_MORE_FACTS = {"manifests": (schemas.METADATA_SOURCE, schemas.METADATA_WATERMARK)}


@dataclass(slots=True)
class Soundness:
    """What was found in a file: rows is how many were read, read whether that was all of them.

    proven says that its bytes were compared, which takes the version of Arrow that wrote it.
    """

    problems: list[tuple[Problem, str]] = field(default_factory=list)
    rows: int = 0
    read: bool = False
    proven: bool = False

    def add(self, problem: Problem, what: str) -> None:
        """Note a problem."""
        self.problems.append((problem, what))


def examine(file: BinaryIO, place: Place, look: Callable[[pa.Table], None]) -> Soundness:
    """Look at a file whose name says what is in it; look gets its rows, a row group at a time, which is all that is held of them."""
    found = Soundness()
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        written, columns = parquet.metadata, parquet.schema_arrow.remove_metadata()
        facts = {name.decode(): value.decode() for name, value in (written.metadata or {}).items()}
        writer, found.proven = written.created_by or "", written_here(written)
    except READER_ERRORS as error:
        found.add(Problem.DAMAGED, f"it cannot be opened: {_one_line(error)}")
        return found
    if not _ARROW.fullmatch(writer):
        found.add(Problem.DAMAGED, f"it says that {writer!r} wrote it")
    for problem, what in [*_wrong_columns(place.dataset, columns), *_wrong_facts(place, facts)]:
        found.add(problem, what)
    if not found.problems:
        _read(file, parquet, place.dataset, look, found)
    return found


def _read(file: BinaryIO, parquet: pq.ParquetFile, dataset: Dataset, look: Callable[[pa.Table], None], found: Soundness) -> None:
    """Read all rows, and write them again where that proves something."""
    written = parquet.metadata
    twin = _Twin(file)
    try:
        again = sink_like(twin, dataset, written) if found.proven else None  # type: ignore[arg-type]  # all that Arrow asks for
        for place in range(written.num_row_groups):
            rows = parquet.read_row_group(place)
            if rows.num_rows != written.row_group(place).num_rows:
                found.add(Problem.DAMAGED, f"its footer counts {written.row_group(place).num_rows:,} rows where {rows.num_rows:,} are")
                return
            found.rows += rows.num_rows
            look(rows)
            if again is not None:
                again.write(rows)
            else:
                for what in _wrong_statistics(written, place, rows):
                    found.add(Problem.DAMAGED, what)
        if again is not None:
            again.close()
    except READER_ERRORS as error:
        found.add(Problem.DAMAGED, f"it cannot be read: {_one_line(error)}")
        return
    found.read = True
    if found.proven and (differs := twin.differs(written.metadata or {})) is not None:
        found.add(Problem.DAMAGED, f"its rows give other bytes, from byte {differs:,} on")


def _wrong_columns(dataset: Dataset, columns: pa.Schema) -> Iterator[tuple[Problem, str]]:
    """Columns that are not the dataset's; a column that came later may be missing, since then it is nullable."""
    ours = dataset.arrow_schema()
    if unknown := [name for name in columns.names if name not in ours.names]:
        yield Problem.SCHEMA, f"it has columns that its dataset has not: {', '.join(map(repr, unknown))}"
    elif columns.names != [name for name in ours.names if name in columns.names]:
        yield Problem.SCHEMA, "its columns are not in their order"
    for column in ours:
        place = columns.get_field_index(column.name)
        if place < 0 and not column.nullable:
            yield Problem.SCHEMA, f"it has no column {column.name}"
        elif place >= 0 and not columns.field(place).equals(column):
            yield Problem.SCHEMA, f"its {column.name} is {_described(columns.field(place))}, not {_described(column)}"


def _described(column: "pa.Field[Any]") -> str:
    return f"{column.type}{'' if column.nullable else ' not null'}"


def _wrong_facts(place: Place, facts: dict[str, str]) -> Iterator[tuple[Problem, str]]:
    """What the file's metadata says otherwise than its name."""
    expected = {
        schemas.METADATA_DATASET: place.dataset.name,
        schemas.METADATA_RUN_ID: place.run_id,
        schemas.METADATA_PACKAGE: place.package,
    }
    known = {*_FACTS, *((schemas.METADATA_MEMBERS,) if place.digest else _MORE_FACTS.get(place.dataset.name, ()))}
    if absent := [name for name in _FACTS if name not in facts]:
        yield Problem.DAMAGED, f"its metadata lacks {', '.join(absent)}"
    elif unknown := sorted(facts.keys() - known):
        yield Problem.DAMAGED, f"its metadata has {', '.join(map(repr, unknown))}"
    elif facts[schemas.METADATA_SCHEMA_VERSION] not in map(str, range(1, schemas.SCHEMA_VERSION + 1)):
        yield Problem.SCHEMA, f"it says that it is of schema version {facts[schemas.METADATA_SCHEMA_VERSION]!r}"
    if place.digest and not _are_members(facts.get(schemas.METADATA_MEMBERS, ""), place.digest):
        yield Problem.DAMAGED, "its metadata names other packages than its name says"
    for name, value in expected.items():
        if name in facts and facts[name] != value:
            yield Problem.MISPLACED, f"its metadata says {name} = {facts[name]!r}, its name {value!r}"


def _are_members(told: str, digest: str) -> bool:
    try:
        return members_digest(msgspec.json.decode(told, type=frozenset[str])) == digest
    except msgspec.MsgspecError:
        return False


def _wrong_statistics(written: pq.FileMetaData, group: int, rows: pa.Table) -> Iterator[str]:
    """What the footer says otherwise of the columns of a row group than their values do."""
    for place in range(written.num_columns):
        column, described = written.row_group(group).column(place), written.schema.column(place)
        if (column.physical_type, column.path_in_schema) != (described.physical_type, described.path):
            yield f"its footer has two descriptions of column {place}"
            continue  # to ask for the statistics of such a column ends the process (Arrow 26.0.1)
        said: Any = column.statistics
        values = rows[column.path_in_schema]
        if said is None:
            continue
        if said.has_null_count and said.null_count != values.null_count:
            yield f"its footer counts {said.null_count} nulls of {values.null_count} in {column.path_in_schema}"
        least = pc.min_max(values)
        if said.has_min_max and (said.min, said.max) != (least["min"].as_py(), least["max"].as_py()):
            yield f"its footer has other bounds of {column.path_in_schema} than its values"


class _Twin(RawIOBase):
    """Takes a file as it is written and holds it against another one, of which it reads as much as that.

    Of the footers it does not mind in which order they have the facts about the file: that is another on another system.
    """

    def __init__(self, original: BinaryIO) -> None:
        super().__init__()
        self._original = original
        self._size = original.seek(0, SEEK_END)
        original.seek(self._size - _FOOTER_END)
        self._footer_at = self._size - _FOOTER_END - int.from_bytes(original.read(4), "little")
        self._footer = b""
        self._reached = 0
        self._differs: int | None = None

    def writable(self) -> bool:
        """Nothing else."""
        return True

    def write(self, data: Any) -> int:
        """Compare, or keep what belongs to the footer."""
        given = bytes(data)
        before = given[: max(0, self._footer_at - self._reached)]
        self._footer += given[len(before) :]
        if before and self._differs is None:
            self._original.seek(self._reached)
            there = self._original.read(len(before))
            if there != before:
                self._differs = self._reached + next(
                    place for place, (one, other) in enumerate(zip(before, there, strict=True)) if one != other
                )
        self._reached += len(given)
        return len(given)

    def tell(self) -> int:
        """How much was written."""
        return self._reached

    def differs(self, facts: Mapping[bytes, bytes]) -> int | None:
        """From which byte on the two differ, None where they are the same to the end."""
        if self._differs is not None:
            return self._differs
        self._original.seek(self._footer_at)
        ours, theirs = (_without(facts, footer) for footer in (self._footer, self._original.read()))
        return None if ours == theirs else self._footer_at


def _without(facts: Mapping[bytes, bytes], footer: bytes) -> bytes:
    """A footer without the facts about the file, each of which it has as Thrift's compact protocol writes two strings."""
    for pair in facts.items():
        written = b"".join(b"\x18" + _varint(len(text)) + text for text in pair)
        footer = footer.replace(written, b"", 1)
    return footer


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 1 << 7 else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
