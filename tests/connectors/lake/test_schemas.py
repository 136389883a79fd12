from pathlib import Path

import pytest

from connectors.lake.columns import ColumnType
from connectors.lake.dictionary import data_dictionary
from connectors.lake.query import connect
from connectors.lake.schemas import ENDPOINT_DATASETS, datasets
from moderation.endpoints import ENDPOINTS

DICTIONARY = Path(__file__).parents[3] / "docs" / "data-dictionary.md"


def test_the_committed_dictionary_is_the_one_that_the_schemas_make():
    assert DICTIONARY.read_text(encoding="utf-8") == data_dictionary(), "python -m connectors.lake.dictionary > docs/data-dictionary.md"


def test_the_dictionary_names_every_view(tmp_path):
    with connect(str(tmp_path)) as connection:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    missing = (
        {name for (name,) in views} - datasets().keys() - {line.split("`")[1] for line in data_dictionary().splitlines() if "| `" in line}
    )
    assert not missing


@pytest.mark.parametrize("dataset", datasets().values(), ids=lambda dataset: dataset.name)
def test_columns_are_named_once_and_described(dataset):
    names = [column.name for column in dataset.columns]
    assert len(set(names)) == len(names)
    assert set(dataset.sorted_by) <= set(names)
    assert all(column.description.endswith(".") for column in dataset.columns)
    assert dataset.arrow_schema().names == names


def test_every_endpoint_has_its_items_and_summaries():
    assert ENDPOINT_DATASETS.keys() == ENDPOINTS.keys()


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.name)
def test_everything_on_the_wire_has_a_column(endpoint):
    items, summaries, _ = ENDPOINT_DATASETS[endpoint.name]
    assert set(endpoint.item_type.__struct_fields__) < {column.name for column in items.columns}
    assert set(endpoint.done_type.__struct_fields__) < {column.name for column in summaries.columns}


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.name)
def test_whatever_the_wire_may_leave_out_may_be_null(endpoint):
    summaries = ENDPOINT_DATASETS[endpoint.name].summaries
    nullable = {column.name for column in summaries.columns if column.nullable}
    assert set(endpoint.done_type.__struct_fields__) <= nullable


def test_integers_are_signed_and_fractions_double():
    types = {column.type for dataset in datasets().values() for column in dataset.columns}
    assert types == set(ColumnType)
