"""A DuckDB database that is views over the results, and nothing else."""

import shutil
from datetime import date

import duckdb
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from connectors.lake.database import write_database
from connectors.lake.packages import write_package
from connectors.lake.query import connect
from connectors.lake.s3_tables import _filesystem
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore, open_store
from connectors.lake.views import views
from moderation.errors import ConfigurationError

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
NAMES = [*datasets(), *(view.name for view in views())]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A database over results that are not there yet."""
    folder = tmp_path_factory.mktemp("written")
    write_database(folder / "velma.duckdb", str(folder / "later"))
    return folder / "velma.duckdb"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "velma.duckdb"


def rows(file, query: str) -> list[tuple]:
    with duckdb.connect(file, read_only=True) as database:
        return database.execute(query).fetchall()


def test_whoever_opens_it_sees_the_results_and_those_that_come_later(file, lake, session):
    write_package(lake, PACKAGE, RUN, DAY, [session(1)])
    write_database(file, lake.url)
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in NAMES)
    with connect(lake.url) as ours:
        assert sorted(rows(file, counts)) == sorted(ours.execute(counts).fetchall())
    write_package(lake, f"{RUN}-p0002", RUN, DAY, [session(2, outcome="failed", quarantined=True), session(3, endpoint="ai_music")])
    assert rows(file, "SELECT count(*) FROM quarantined_now") == [(1,)]
    assert rows(file, "SELECT count(*) FROM ai_music_latest") == [(1,)]


def test_it_has_views_and_no_table(file, lake, session):
    write_package(lake, PACKAGE, RUN, DAY, [session(1)])
    write_database(file, lake.url)
    assert {name for (name,) in rows(file, "SELECT view_name FROM duckdb_views() WHERE NOT internal")} == set(NAMES)
    assert rows(file, "FROM duckdb_tables()") == []


def test_an_earlier_one_is_replaced(file, tmp_path, session):
    for folder in ("old", "new"):
        write_package(FolderStore(tmp_path / folder), PACKAGE, RUN, DAY, [session(1, key=folder)])
        write_database(file, str(tmp_path / folder))
    assert rows(file, "SELECT key FROM music_latest") == [("new",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE kept (n INT)",
        "CREATE TABLE runs (n INT)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE SCHEMA other; CREATE VIEW other.runs AS SELECT 1",
        "CREATE MACRO twice(n) AS 2 * n",
        "CREATE SEQUENCE numbers",
        "CREATE TYPE mood AS ENUM ('good')",
    ],
)
def test_a_database_with_anything_else_stays_as_it_is(file, lake, written, statement):
    shutil.copy(written, file)
    with duckdb.connect(file) as database:
        if "runs (" in statement:
            database.execute("DROP VIEW runs")
        database.execute(statement)
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match="something else"):
        write_database(file, lake.url)
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_stays_as_it_is(file, lake):
    file.write_text("key,verdict\n" * 1000, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"velma\.duckdb cannot be used as a database"):
        write_database(file, lake.url)
    assert file.read_text(encoding="utf-8") == "key,verdict\n" * 1000


def test_a_file_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path, lake):
    with pytest.raises(ConfigurationError, match="cannot be used as a database"):
        write_database(tmp_path / "none" / "velma.duckdb", lake.url)
    with pytest.raises(ConfigurationError, match="names no valid bucket"):
        write_database(tmp_path / "velma.duckdb", "s3://!/x")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_one_over_s3_is_written_without_a_reader_of_s3(file):
    write_database(file, "s3://moderation/velma")
    assert {name for (name,) in rows(file, "SELECT view_name FROM duckdb_views() WHERE NOT internal")} == set(NAMES)
    (found,) = rows(file, "SELECT sql FROM duckdb_views() WHERE view_name = 'music_frames'")
    assert "s3://moderation/velma/v1/music_frames/*/*.parquet" in found[0]


def test_one_over_s3_reads_what_is_there_through_whatever_reads_s3(file, s3, session):
    """Here Arrow's reader in place of httpfs."""
    store = open_store("s3://results-bucket/some/prefix", s3)
    write_package(store, PACKAGE, RUN, DAY, [session(1), session(2, endpoint="ai_music")])
    write_database(file, store.url)
    with duckdb.connect(file, read_only=True) as database:
        database.register_filesystem(ArrowFSWrapper(_filesystem(s3), skip_instance_cache=True))
        assert database.execute("SELECT key, scan_date FROM music_latest").fetchall() == [(session(1).summary["key"], DAY)]
        assert database.execute("SELECT count(*) FROM windows_latest").fetchall() == [(5,)]
        assert database.execute("SELECT count(*) FROM catalogue_latest").fetchall() == [(0,)]
