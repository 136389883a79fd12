"""Files that were damaged on the way: which flips `verify` reports, and what readers make of them."""

import random
from collections import Counter
from dataclasses import replace
from datetime import date
from io import BytesIO

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from connectors.lake import soundness
from connectors.lake.columns import count
from connectors.lake.findings import Problem
from connectors.lake.names import place_of
from connectors.lake.packages import rows_sink, write_package
from connectors.lake.parquet import ParquetSink
from connectors.lake.schemas import datasets
from connectors.lake.soundness import examine
from connectors.lake.store import FolderStore

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
DAY = date(2026, 3, 1)
PACKAGE = f"{RUN}-p0001"
FRAMES = f"music_frames/scan_date=2026-03-01/{PACKAGE}.parquet"
SUMMARIES = f"music_summaries/scan_date=2026-03-01/{PACKAGE}.parquet"


@pytest.fixture(scope="module")
def published(tmp_path_factory, session, package) -> dict[str, bytes]:
    """The files of a package with short sessions and long ones."""
    store = FolderStore(tmp_path_factory.mktemp("published"))
    long = [session(40, items=10_000), session(41, items=3_000, endpoint="ai_music")]
    return {name: store.get(name) for name in write_package(store, PACKAGE, RUN, DAY, [*package, *long])}


def problems(name: str, data: bytes) -> list[tuple[Problem, str]]:
    return examine(BytesIO(data), place_of(name), lambda rows: None).problems


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def columns_region(data: bytes) -> range:
    """Where the column chunks of a file lie, page headers and pages."""
    group = pq.ParquetFile(BytesIO(data)).metadata.row_group(0)
    return range(4, 4 + sum(group.column(place).total_compressed_size for place in range(group.num_columns)))


# Readers: each gives the rows of a file as Arrow, all of them and those of one object; what it raises says that it refuses the file.


def by_arrow(path, object_id):
    options = {"page_checksum_verification": True, "schema": pq.read_schema(path)}
    return pq.read_table(path, **options), pq.read_table(path, filters=[("object_id", "==", object_id)], **options)


def by_duckdb(path, object_id):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = f"FROM read_parquet('{path}', hive_partitioning = false)"
        every = connection.sql(query).to_arrow_table()
        return every, connection.sql(f"{query} WHERE object_id = ?", params=[object_id]).to_arrow_table()


def by_polars(path, object_id):
    rows = pl.scan_parquet(path, hive_partitioning=False)
    return rows.collect().to_arrow(), rows.filter(pl.col("object_id") == object_id).collect().to_arrow()


READERS = (by_arrow, by_duckdb, by_polars)


def reading(reader, path, truth: pa.Table, object_id: str) -> str:
    """What a reader makes of a file whose rows are known: the same, others, of other types, refused, or that it passes some over."""
    try:
        every, of_object = reader(path, object_id)
        own = truth.filter(pc.equal(truth["object_id"], object_id))
        if [plain(every[name].type) for name in truth.column_names] != [column.type for column in truth.columns]:
            return "other types"
        if not same(every, truth):
            return "other"
        return "same" if same(of_object, own) else "passes over"
    except Exception:  # noqa: BLE001 - whatever it raises, it gives no values
        return "refused"
    except BaseException as panic:
        if type(panic).__name__ != "PanicException":  # how polars gives up
            raise
        return "refused"


def same(table: pa.Table, truth: pa.Table) -> bool:
    """Whether the columns of the truth have the same types and values there, doubles by their bits."""
    return all(bits(table[name]).equals(bits(truth[name])) for name in truth.column_names)


def plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if kind == pa.large_string() else kind


def bits(column: pa.ChunkedArray) -> pa.Array:
    values = column.cast(plain(column.type))
    array = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return array.view(pa.int64()) if array.type == pa.float64() else array


def flips(published: dict[str, bytes], number: int, seed: int):
    """Random bits: half of them of any file, half by size."""
    chance = random.Random(seed)
    names = list(published)
    for place in range(number):
        name = chance.choice(names) if place % 2 else chance.choices(names, [len(published[each]) for each in names])[0]
        yield name, chance.randrange(8 * len(published[name]))


def judged(published, tmp_path, number: int, seed: int) -> Counter:
    """Flip that many bits, one at a time; how many were reported or not, and what each reader made of them."""
    seen: Counter[tuple[str, ...]] = Counter()
    truths = {name: pq.read_table(BytesIO(data)) for name, data in published.items()}
    path = tmp_path / "flipped.parquet"
    for name, bit in flips(published, number, seed):
        data = flipped(published[name], bit)
        path.write_bytes(data)
        found = bool(problems(name, data))
        truth = truths[name]
        made = [reading(reader, path, truth, truth["object_id"][0].as_py()) for reader in READERS]
        in_columns = bit // 8 in columns_region(published[name])
        seen["reported" if found else "not reported", "columns" if in_columns else "elsewhere", *made] += 1
        if not found:
            assert b"parquet-cpp-arrow version " in published[name][bit // 8 - 40 : bit // 8 + 40], (name, bit)
            assert made == ["same"] * len(READERS), (name, bit)
        assert made[0] != "other", (name, bit)
    return seen


@pytest.mark.fault(71)
def test_every_flip_that_changes_a_value_is_reported(published, tmp_path):
    seen = judged(published, tmp_path, 40, 1)
    assert sum(count for key, count in seen.items() if key[0] == "reported") >= 38
    assert any("other" in key for key in seen)


@pytest.mark.fault(71)
@pytest.mark.torture
def test_a_thousand_flips(published, tmp_path):
    for key, number in sorted(judged(published, tmp_path, 1000, 2).items()):
        print(number, *key)  # noqa: T201 - the figures of docs/reliability.md


def truncations(published, number: int, seed: int) -> list[tuple[str, int]]:
    chance = random.Random(seed)
    return [(name, chance.randrange(len(published[name]))) for name in chance.choices(list(published), k=number)]


@pytest.mark.fault(71)
@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.torture)])
def test_every_truncation_is_reported_and_refused(published, tmp_path, number):
    path = tmp_path / "cut.parquet"
    for name, length in truncations(published, number, 3):
        path.write_bytes(published[name][:length])
        assert [problem for problem, _ in problems(name, published[name][:length])] == [Problem.DAMAGED]
        truth = pq.read_table(BytesIO(published[name]))
        assert [reading(reader, path, truth, "x") for reader in READERS] == ["refused"] * len(READERS)


def test_sound_files_have_no_problems(published, tmp_path):
    path = tmp_path / "sound.parquet"
    for name, data in published.items():
        path.write_bytes(data)
        truth = pq.read_table(path)
        assert [reading(reader, path, truth, truth["object_id"][0].as_py()) for reader in READERS] == ["same"] * len(READERS)
        found = examine(BytesIO(data), place_of(name), lambda rows: None)
        assert (found.problems, found.read, found.proven) == ([], True, True)
        assert found.rows == pq.read_metadata(BytesIO(data)).num_rows


def test_the_same_of_many_row_groups_and_of_none(tmp_path, monkeypatch, published, listed):
    monkeypatch.setattr("connectors.lake.parquet.ROW_GROUP_ROWS", 1000)
    monkeypatch.setattr("connectors.lake.packages.RUN_GROUP_ROWS", 70)
    out = BytesIO()
    frames = pq.read_table(BytesIO(published[FRAMES]))
    with ParquetSink(out, datasets()["music_frames"], run_id=RUN, package=PACKAGE, few_valued=["music_prob"], objects=70_000) as sink:
        sink.write(frames)
    assert pq.ParquetFile(out).num_row_groups == 11
    assert problems(FRAMES, out.getvalue()) == []
    store = FolderStore(tmp_path)
    for rows in ([], [listed(number) for number in range(300)]):
        with rows_sink(store, "manifests", RUN, DAY, "manifest") as sink:
            sink.write(rows)
            sink.describe({"soundcheck.source": "s3://b/", "soundcheck.watermark": "2026-03-01T00:00:00+00:00"})
        name = f"_runs/{RUN}/manifest.parquet"
        assert problems(name, store.get(name)) == []


@pytest.mark.parametrize("objects", [None, 1, 26, 27, 1000, 250_000])
def test_the_size_of_a_filter_is_told_from_the_file(objects, published):
    out = BytesIO()
    with ParquetSink(out, datasets()["music_frames"], run_id=RUN, package=PACKAGE, objects=objects) as sink:
        sink.write(pq.read_table(BytesIO(published[FRAMES])).slice(0, 10))
    assert problems(FRAMES, out.getvalue()) == []


def test_a_file_of_an_earlier_schema_version_is_sound(published, monkeypatch):
    """A column came later, and the version counted up."""
    frames = datasets()["music_frames"]
    later = replace(frames, columns=(*frames.columns, count("loudness", "Later.", nullable=True)))
    monkeypatch.setattr("connectors.lake.schemas.SCHEMA_VERSION", 2)
    place = replace(place_of(FRAMES), dataset=later)
    assert examine(BytesIO(published[FRAMES]), place, lambda rows: None).problems == []
    out = BytesIO()
    with ParquetSink(out, later, run_id=RUN, package=PACKAGE, schema_version="2") as sink:
        sink.write(pq.read_table(BytesIO(published[FRAMES])))
    assert examine(BytesIO(out.getvalue()), place, lambda rows: None).problems == []


def test_a_file_of_another_version_of_arrow_is_read_and_held_against_its_statistics(published, monkeypatch):
    monkeypatch.setattr(soundness, "written_here", lambda written: False)
    for name, data in published.items():
        found = examine(BytesIO(data), place_of(name), lambda rows: None)
        assert (found.problems, found.read, found.proven) == ([], True, False)
    data = published[FRAMES]
    page = pq.ParquetFile(BytesIO(data)).metadata.row_group(0).column(5).data_page_offset + 100
    assert [problem for problem, _ in problems(FRAMES, flipped(data, 8 * page))] == [Problem.DAMAGED]
    least = min(pq.read_table(BytesIO(data))["session_id"].to_pylist()).encode()
    in_footer = data.rindex(least)
    [(problem, what)] = problems(FRAMES, flipped(data, 8 * in_footer))
    assert (problem, what) == (Problem.DAMAGED, "its footer has other bounds of session_id than its values")


def test_flips_in_such_files_that_are_not_reported_change_nothing_for_arrow(published, monkeypatch, tmp_path):
    """To ask some damaged footers for statistics ended the process."""
    monkeypatch.setattr(soundness, "written_here", lambda written: False)
    path = tmp_path / "flipped.parquet"
    for name, bit in flips(published, 100, 7):
        data = flipped(published[name], bit)
        if not problems(name, data):
            path.write_bytes(data)
            truth = pq.read_table(BytesIO(published[name]))
            assert reading(by_arrow, path, truth, truth["object_id"][0].as_py()) == "same"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (FRAMES.replace("p0001", "p0002"), "soundcheck.package"),
        (FRAMES.replace("0a1b2c", "0a1b2d"), "soundcheck.run_id"),
        (FRAMES.replace("music_frames", "ai_music_windows"), "its dataset has not: 'frame_index', 'music_prob', 'speech_prob'"),
        (FRAMES.replace("music_frames", "segments"), "its dataset has not"),
    ],
)
def test_a_file_under_another_name_is_found(published, name, says):
    assert says in "; ".join(what for _, what in problems(name, published[FRAMES]))


def test_a_file_that_is_no_parquet_is_found():
    for data in (b"", b"PAR1", b"PAR1PAR1", b"hello" * 100):
        assert [problem for problem, _ in problems(FRAMES, data)] == [Problem.DAMAGED]


def test_a_file_of_another_writer_is_found(published):
    """The same rows, with other settings: the values are right, and nobody knows what else is."""
    out = BytesIO()
    frames = pq.read_table(BytesIO(published[FRAMES]))
    pq.write_table(frames.replace_schema_metadata(), out)
    [(problem, what)] = problems(FRAMES, out.getvalue())
    assert (problem, "its metadata lacks soundcheck.dataset" in what) == (Problem.DAMAGED, True)
