"""What Prefect makes of our flows' parameters: the form of its UI, and what it refuses before a run begins."""

import pytest
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import is_valid, validate

from flows.backfill import backfill_catalogue, retry_quarantined
from flows.decisions import decide_lake
from flows.maintain import compact_lake, overdue_scans, reconcile_lake, verify_lake
from flows.scan import scan_catalogue
from flows.stream_shard import stream_shard
from moderation.endpoints import ENDPOINTS

RUNS = (scan_catalogue, backfill_catalogue, retry_quarantined, stream_shard)
FLOWS = {flow.name: flow for flow in (*RUNS, verify_lake, reconcile_lake, compact_lake, overdue_scans, decide_lake)}


def form(flow: Flow) -> dict:
    return parameter_schema(flow).model_dump_for_openapi()


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_says_what_it_is(name):
    shown = form(FLOWS[name])
    fields = shown["properties"] | shown["definitions"].get("Portion", {}).get("properties", {})
    assert [field for field, told in fields.items() if not told.get("description")] == []


def test_endpoints_are_chosen_from_those_there_are():
    chosen = form(backfill_catalogue)["properties"]["endpoints"]["anyOf"][0]
    assert chosen["items"]["enum"] == list(ENDPOINTS)


@pytest.mark.parametrize(
    ("name", "parameters", "names"),
    [
        ("backfill", {"source": "s3://music/", "endpoints": ["voices"]}, "voices"),
        ("backfill", {"source": 7}, "7"),
        ("backfill", {"source": "s3://music/", "portion": {"limit": -1}}, "-1"),
        ("backfill", {"source": "s3://music/", "portion": {"max_hours": "many"}}, "many"),
        ("scan-catalogue", {}, "source"),
        ("retry", {}, "where"),
        ("verify-results", {"since": 20261101}, "20261101"),
        ("verify-results", {"since": "yesterday"}, "yesterday"),
        ("compact-results", {"before": "2026-11"}, "2026-11"),
        ("overdue-scans", {"every_hours": 0}, "0"),
        ("stream-shard", {"run_id": "20261121T101500Z-3fa2c1", "shard": "first"}, "first"),
    ],
)
def test_a_wrong_parameter_is_refused_and_named(name, parameters, names):
    refusals = validate(parameters, form(FLOWS[name]), raise_on_error=False)
    assert any(names in refusal.message or names in str(list(refusal.path)) for refusal in refusals)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("scan-catalogue", {"source": "s3://music/"}),
        (
            "backfill",
            {"source": ["s3://music/", "keys:s3://music/keys.csv"], "endpoints": ["music"], "portion": {"limit": 3, "include": ["a/*"]}},
        ),
        ("backfill", {"where": "music_pct > 50", "portion": {"modified_from": "2026-11-01T00:00:00Z"}}),
        ("retry", {"where": "reason = 'undecodable'"}),
        ("verify-results", {"since": "2026-11-01"}),
        ("compact-results", {}),
    ],
)
def test_what_the_readme_does_by_commands_can_be_filled_in(name, parameters):
    assert is_valid(parameters, form(FLOWS[name]))
    assert FLOWS[name].validate_parameters(parameters)
