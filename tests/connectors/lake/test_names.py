"""Names in a result store: what is a dataset's, what only a run reads, and what nobody knows."""

import pytest

from connectors.lake.names import is_own_of_run, is_policy, is_report, place_of, policy_name

RUN = "20260601T010203Z-1a2b3c"


@pytest.mark.parametrize(
    "name", ["alive", "chosen.parquet", "held.parquet", "listing/listing.json", "listing/0-17.parquet", "shards/3/0a1b-2.json"]
)
def test_what_only_a_run_reads_is_known_and_no_dataset(name):
    assert is_own_of_run(f"_runs/{RUN}/{name}")
    assert place_of(f"_runs/{RUN}/{name}") is None


@pytest.mark.parametrize(
    "name",
    [
        f"_runs/{RUN}/dead",
        f"_runs/{RUN}/alive.parquet",
        f"_runs/{RUN}/listing/x.parquet",
        f"_runs/{RUN}/report.js",
        "_runs/other/alive",
        f"runs/{RUN}/alive",
        f"_runs/{RUN}/alive\n",
    ],
)
def test_what_nobody_wrote_is_foreign(name):
    assert not is_own_of_run(name)
    assert not is_report(name)


@pytest.mark.parametrize("name", ["report.html", "report.json", "flagged.csv", "flagged.parquet"])
def test_what_people_read_of_a_run_is_a_report_and_nothing_that_it_reads_again(name):
    assert is_report(f"_runs/{RUN}/{name}")
    assert not is_own_of_run(f"_runs/{RUN}/{name}")
    assert place_of(f"_runs/{RUN}/{name}") is None


@pytest.mark.parametrize(("dataset", "part"), [("decisions", "d0001"), ("decisions", "d12345"), ("review_answers", "a0001")])
def test_decisions_and_answers_are_a_runs_own_files_by_number(dataset, part):
    place = place_of(f"{dataset}/scan_date=2026-06-01/{RUN}-{part}.parquet")
    assert (place.dataset.name, place.run_id, place.package) == (dataset, RUN, "")


@pytest.mark.parametrize(("dataset", "part"), [("decisions", "a0001"), ("decisions", "d1"), ("review_answers", "start"), ("runs", "d0001")])
def test_a_file_of_another_dataset_or_without_its_number_is_foreign(dataset, part):
    assert place_of(f"{dataset}/scan_date=2026-06-01/{RUN}-{part}.parquet") is None


def test_a_policy_lies_under_its_hash():
    assert is_policy(policy_name("0123456789abcdef"))
    for name in ("_policies/policy.toml", "_policies/0123456789abcdef.txt", "policies/0123456789abcdef.toml"):
        assert not is_policy(name)
