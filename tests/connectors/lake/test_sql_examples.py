"""Every query that README.md and the data dictionary show is answered."""

import re
from datetime import date
from pathlib import Path

import pytest
import sqlglot

from connectors.lake.packages import write_package, write_rows
from connectors.lake.query import connect
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from connectors.lake.views import views

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
ROOT = Path(__file__).parents[3]


def examples(page: str) -> list[str]:
    return re.findall(r"^```sql\n(.+?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def small_lake(tmp_path_factory, package, run, listed, decision, answer):
    """A row or more in every dataset."""
    store = FolderStore(tmp_path_factory.mktemp("lake"))
    write_package(store, PACKAGE, RUN, DAY, package)
    write_rows(store, "runs", RUN, DAY, "start", [run])
    write_rows(store, "decisions", RUN, DAY, "d0001", [decision()])
    write_rows(store, "review_answers", RUN, DAY, "a0001", [answer()])
    write_rows(store, "manifests", RUN, DAY, "manifest", [listed(1)])
    planned = {"object_id": package[0].object_id, "endpoint": "music", "params_hash": "p1", "decision": "stream", "estimate_ms": 0}
    write_rows(store, "plan", RUN, DAY, "plan", [{**planned, "estimate_source": "none"}])
    with connect(store.url) as lake:
        yield lake


@pytest.mark.parametrize("page", ["README.md", "docs/data-dictionary.md"])
def test_every_example_is_answered(small_lake, page):
    assert examples(page)
    for query in examples(page):
        assert small_lake.execute(query).description, query


def test_the_dictionary_has_an_example_of_everything_that_other_engines_take_too():
    shown = examples("docs/data-dictionary.md")
    for name in (*datasets(), *(view.name for view in views())):
        assert any(re.search(rf"\bFROM {name}\b", query) for query in shown), name
    for query in shown:
        sqlglot.parse_one(query, dialect="trino", error_level=sqlglot.ErrorLevel.RAISE)
