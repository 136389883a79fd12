"""Files of schema version 1 and of a later one, with a column more, read together: by engines alone, and through the views."""

from dataclasses import replace
from datetime import date
from io import BytesIO

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from connectors.lake.columns import Dataset, count
from connectors.lake.packages import write_package
from connectors.lake.parquet import ParquetSink
from connectors.lake.query import connect
from connectors.lake.schemas import datasets
from connectors.lake.tables import duckdb_query
from tasks.refresh import keep_current

RUN = "20260301T080000Z-0a1b2c"
DAY = date(2026, 3, 1)
LATER = count("loudness", "How loud it is.", "dB", nullable=True)
LOUDNESS = 7


def later(name: str) -> Dataset:
    """A dataset as a later version has it."""
    return replace(datasets()[name], columns=(*datasets()[name].columns, LATER))


@pytest.fixture
def mixed(lake, session):
    """A session of this version, and one whose files a later version has written."""
    write_package(lake, f"{RUN}-p0001", RUN, DAY, [session(1, items=3)])
    names = write_package(lake, f"{RUN}-p0002", RUN, DAY, [session(2, items=4)])
    for name in names:
        kind, out = later(name.partition("/")[0]), BytesIO()
        rows = pq.read_table(BytesIO(lake.get(name)))
        with ParquetSink(out, kind, run_id=RUN, package=f"{RUN}-p0002", schema_version="2") as sink:
            sink.write(rows.append_column(LATER.name, [[LOUDNESS] * rows.num_rows]))
        lake.put(name, out.getvalue())
    return lake


def test_duckdb_reads_both_by_name(mixed):
    files = f"'{mixed.root}/music_frames/*/*.parquet'"
    found = duckdb.sql(f"SELECT loudness, count(*), count(music_prob) FROM read_parquet({files}, union_by_name = true) GROUP BY ALL")
    assert set(found.fetchall()) == {(None, 3, 2), (LOUDNESS, 4, 3)}


def test_polars_reads_both_with_the_schema_of_either_version(mixed):
    files = f"{mixed.root}/music_frames/*/*.parquet"
    new = pl.scan_parquet(files, schema=polars_schema(later("music_frames")), missing_columns="insert")
    assert new.select("loudness").collect()["loudness"].to_list() == [None] * 3 + [LOUDNESS] * 4
    old = pl.scan_parquet(files, schema=polars_schema(datasets()["music_frames"]), extra_columns="ignore")
    assert old.collect().shape == (7, len(datasets()["music_frames"].columns))


def polars_schema(dataset: Dataset) -> pl.Schema:
    return pl.DataFrame(dataset.arrow_schema().empty_table()).schema


def test_the_later_version_reads_both(mixed):
    found = duckdb.sql(f"SELECT key, loudness, scan_date FROM ({duckdb_query(later('music_summaries'), str(mixed.root))}) ORDER BY key")
    assert [row[1:] for row in found.fetchall()] == [(None, DAY), (LOUDNESS, DAY)]


@pytest.mark.parametrize("materialised", [False, True])
def test_this_version_reads_both_through_its_views(mixed, session, materialised):
    assert bool(keep_current(mixed) if materialised else []) is materialised
    with connect(mixed.url) as lake:
        latest = lake.execute("FROM music_latest ORDER BY key")
        assert "loudness" not in [column[0] for column in latest.description]
        assert [row[2] for row in latest.fetchall()] == [session(1).session_id, session(2).session_id]
        assert lake.execute("SELECT count(*) FROM frames_latest").fetchall() == [(7,)]
        assert lake.execute("SELECT count(*) FROM segments_latest").fetchall() != [(0,)]
