"""The lake told to other engines: parsed in their dialects, and DuckDB's run for real."""

import re
from datetime import date

import duckdb
import pytest
import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.optimizer.qualify import qualify

from connectors.lake import ddl
from connectors.lake.columns import ColumnType
from connectors.lake.ddl import PLACEHOLDER, root_of, script
from connectors.lake.dialects import Engine
from connectors.lake.packages import write_package, write_rows
from connectors.lake.query import connect
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore, S3Store
from connectors.lake.views import DAY_OF_PLAIN, View, views
from connectors.s3 import S3Uri
from moderation.errors import ConfigurationError

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
URL = "s3://moderation/velma/"
HIDDEN_TABLES = {"manifests", "plan"}
HIDDEN_VIEWS = {"cascade_backlog", "catalogue_latest", "outcomes"}
"""What reads the files of a run, which lie below an underscore."""
TYPES = {
    Engine.ATHENA: {"TEXT": ColumnType.STRING, "BIGINT": ColumnType.INT64, "DOUBLE": ColumnType.DOUBLE, "TIMESTAMP": ColumnType.INSTANT},
    Engine.TRINO: {"VARCHAR": ColumnType.STRING, "BIGINT": ColumnType.INT64, "DOUBLE": ColumnType.DOUBLE, "TIMESTAMP": ColumnType.INSTANT},
}
OF_HIVE = list(TYPES)
"""The engines whose tables are Hive's."""


def parsed(engine: Engine, url: str | None = URL) -> list[exp.Expression]:
    statements = sqlglot.parse(script(engine, url), dialect=engine.value, error_level=sqlglot.ErrorLevel.RAISE)
    return [statement for statement in statements if statement is not None]


def made(engine: Engine, kind: str) -> dict[str, exp.Create]:
    """The statements that make tables or views, by the name of what they make."""
    found = [statement for statement in parsed(engine) if isinstance(statement, exp.Create) and statement.kind == kind]
    return {statement.find(exp.Table).name: statement for statement in found}


@pytest.mark.parametrize("url", [URL, None])
@pytest.mark.parametrize("engine", Engine)
def test_every_statement_parses_in_its_dialect(engine, url):
    known = (exp.Create, exp.Comment, exp.Use)
    others = [statement for statement in parsed(engine, url) if not isinstance(statement, known)]
    # sqlglot takes CALL as it is
    assert all(str(statement.this).upper() == "CALL" for statement in others)
    assert bool(others) == (engine is Engine.TRINO)


@pytest.mark.parametrize("engine", OF_HIVE)
def test_tables_have_the_columns_types_and_places_of_the_schemas(engine):
    tables = made(engine, "TABLE")
    assert tables.keys() == datasets().keys() - HIDDEN_TABLES
    for name, statement in tables.items():
        columns = [column for column in statement.this.expressions if isinstance(column, exp.ColumnDef)]
        types = {column.name: TYPES[engine].get(column.kind.this.name) for column in columns if column.name != "scan_date"}
        assert types == {column.name: column.type for column in datasets()[name].columns}
        assert all(column.find(exp.CommentColumnConstraint).this.name for column in columns)
        assert f"'s3://moderation/velma/v1/{name}/'" in statement.sql(dialect=engine.value)
        (partition,) = {column.sql() for column in statement.find_all(exp.ColumnDef) if column.name == "scan_date"}
        assert partition.startswith("scan_date DATE")


@pytest.mark.parametrize("engine", OF_HIVE)
def test_views_read_columns_that_there_are_and_call_functions_that_the_engine_has(engine):
    made_views = made(engine, "VIEW")
    known = {view.name for view in views()}
    assert made_views.keys() == known - HIDDEN_VIEWS
    tables = {name: dict.fromkeys(columns_of(statement), "TEXT") for name, statement in made(engine, "TABLE").items()}
    for name, statement in made_views.items():
        query = statement.expression
        assert not list(query.find_all(exp.Anonymous, exp.Qualify)), name
        plain = qualify(query.copy(), schema=tables, dialect=engine.value, validate_qualify_columns=True)
        tables[name] = dict.fromkeys(plain.named_selects, "TEXT")
    with duckdb.connect() as connection:
        connection.execute(script(Engine.DUCKDB, "/nowhere"))
        for name in made_views:
            columns = [column for (column,) in connection.execute(f"SELECT column_name FROM (DESCRIBE {name})").fetchall()]
            assert list(tables[name]) == columns


def columns_of(statement: exp.Create) -> list[str]:
    names = [column.name for column in statement.find_all(exp.ColumnDef)]
    return [*(name for name in names if name != "scan_date"), "scan_date"]


def test_no_text_of_a_view_has_what_duckdb_alone_understands():
    for view in views():
        assert not re.search(r"\bQUALIFY\b|\(FROM\b|\bEXCLUDE\b|::|\bBY NAME\b|GROUP BY ALL|ORDER BY ALL", view.query), view.name
        assert view.query.startswith(("SELECT ", "WITH "))


@pytest.mark.parametrize("engine", Engine)
def test_no_name_is_a_word_of_the_engine(engine):
    """Column names, too: nothing has to be quoted."""
    reserved = set(Dialect.get_or_raise(engine.value).generator_class.RESERVED_KEYWORDS)
    if engine is Engine.DUCKDB:
        query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        reserved = {name for (name,) in duckdb.connect().execute(query).fetchall()}
    if engine is Engine.ATHENA:
        reserved |= set(Dialect.get_or_raise("trino").generator_class.RESERVED_KEYWORDS) | {
            "date",
            "exchange",
            "partition",
            "timestamp",
            "values",
        }
    assert {"select", "from"} <= {word.lower() for word in reserved}
    names = datasets().keys() | {view.name for view in views()}
    names |= {column.name for dataset in datasets().values() for column in dataset.columns}
    assert not names & {word.lower() for word in reserved}


@pytest.mark.parametrize("engine", OF_HIVE)
def test_what_lies_below_an_underscore_is_left_out_and_named(engine):
    text = script(engine, URL)
    (line,) = (line for line in text.splitlines() if line.startswith("-- Not here:"))
    assert set(re.findall(r"[a-z]+(?:_[a-z]+)*(?=[,.])", line)) & (HIDDEN_TABLES | HIDDEN_VIEWS) == HIDDEN_TABLES | HIDDEN_VIEWS
    assert "_runs" not in text.replace(line, "")


def test_so_is_what_reads_it_through_another_view(monkeypatch):
    over_plan = View("planned", "SELECT * FROM plan", "", "")
    over_view = View("streamed", "SELECT * FROM failures JOIN planned ON true", "", "")
    monkeypatch.setattr(ddl, "views", lambda *_: [over_plan, over_view, View("seen", "SELECT * FROM attempts", "", "")])
    text = script(Engine.TRINO, URL)
    assert re.findall(r"VIEW (\w+)", text) == ["seen"]
    assert "planned, streamed" in text


@pytest.mark.parametrize("engine", Engine)
def test_without_results_it_says_what_to_put_in(engine):
    text = script(engine, None)
    assert text.count(PLACEHOLDER) == 1 + len(datasets()) - (0 if engine is Engine.DUCKDB else len(HIDDEN_TABLES))
    assert PLACEHOLDER in text.splitlines()[1]
    assert "YOUR" not in script(engine, URL)


@pytest.mark.parametrize("engine", OF_HIVE)
def test_a_folder_of_this_machine_is_none_of_their_places(engine, tmp_path):
    with pytest.raises(ConfigurationError, match="reads results in S3"):
        script(engine, str(tmp_path))


def test_a_text_for_hive_can_be_cut_at_its_semicolons():
    """As scripts do that hand Athena one statement after another."""
    pieces = [piece for piece in script(Engine.ATHENA, URL).split(";") if piece.strip()]
    assert len(pieces) == len(parsed(Engine.ATHENA))


@pytest.mark.parametrize("url", ["s3://moderation/velma/", "s3://moderation/velma", "s3://moderation"])
def test_the_root_is_where_the_store_has_its_files(url, tmp_path):
    assert f"{root_of(url)}/x" == S3Store(S3Uri.parse(url), None).address("x")
    assert f"{root_of(str(tmp_path))}/x" == FolderStore(tmp_path).address("x")


@pytest.fixture
def full_lake(tmp_path, package, run, listed):
    """Rows in most datasets, in a folder whose name needs care."""
    store = FolderStore(tmp_path / "it's [x] *")
    write_package(store, PACKAGE, RUN, DAY, package)
    write_rows(store, "runs", RUN, DAY, "start", [run])
    write_rows(store, "manifests", RUN, DAY, "manifest", [listed(1), listed(2)])
    return store


def test_duckdb_run_for_real_shows_what_a_connection_of_ours_shows(full_lake):
    with duckdb.connect() as theirs, connect(full_lake.url) as ours:
        theirs.execute("SET TimeZone = 'UTC'")
        for _ in range(2):
            theirs.execute(script(Engine.DUCKDB, full_lake.url))
        for name in (*datasets(), *(view.name for view in views())):
            shape = f"SELECT column_name, column_type FROM (DESCRIBE {name})"
            assert theirs.execute(shape).fetchall() == ours.execute(shape).fetchall()
            both = [lake.execute(f"FROM {name} ORDER BY ALL").fetchall() for lake in (theirs, ours)]
            assert repr(both[0]) == repr(both[1])  # NaN is not itself
        comments = theirs.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL").fetchall()
        assert comments == []
        unexplained = theirs.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = 'music_frames' AND comment IS NULL AND NOT internal"
        ).fetchall()
        assert unexplained == [("scan_date",)]


def test_the_day_is_that_of_utc_whatever_the_zone_of_the_session(full_lake):
    with duckdb.connect() as theirs, connect(full_lake.url) as ours:
        theirs.execute("SET TimeZone = 'Pacific/Honolulu'")  # where it is the evening before
        theirs.execute(script(Engine.DUCKDB, full_lake.url))
        for query in ("FROM spend_daily ORDER BY ALL", "FROM failures_by_cause ORDER BY ALL"):
            assert theirs.execute(query).fetchall() == ours.execute(query).fetchall() != []


def test_the_day_is_told_for_instants_without_a_zone(full_lake):
    """What Athena and Trino see: the same instants, plain and in UTC."""
    daily = next(view for view in views(DAY_OF_PLAIN) if view.name == "spend_daily")
    with connect(full_lake.url) as lake:
        expected = lake.execute("FROM spend_daily ORDER BY ALL").fetchall()
        plain = re.sub(r"\bFROM (music_summaries|ai_music_summaries|attempts)\b", r"FROM plain_\1", daily.query)
        for name in ("music_summaries", "ai_music_summaries", "attempts"):
            lake.execute(f"CREATE TEMP VIEW plain_{name} AS SELECT * REPLACE (started_at AT TIME ZONE 'UTC' AS started_at) FROM {name}")
        assert lake.execute(f"FROM ({plain}) ORDER BY ALL").fetchall() == expected
