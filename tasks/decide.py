"""Decisions: a policy over everything that is known, and of what it makes the part that is new goes into the lake.

Nothing is streamed for that, and what has not changed is not written again: to repeat it is harmless, for whoever does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from connectors.lake.decisions import changed_rows, changes, counts, flips, make_changed
from connectors.lake.judging import Judging
from connectors.lake.names import policy_name
from connectors.lake.packages import partition_name, rows_sink
from connectors.lake.query import one_line
from connectors.lake.schemas import datasets
from connectors.lake.store import ResultStore
from connectors.lake.untold import Untold, note
from moderation.errors import ConfigurationError
from moderation.identity import object_key_id
from moderation.policy import Policy
from moderation.policy_file import PolicyError, PolicyText, parse_policy
from tasks.frames import frame_of
from tasks.records import Run

DATASET = "decisions"
STARTER = Path(__file__).with_name("starter_policy.toml")
"""A policy to begin with."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a policy has made of an organisation's objects.

    counts has decision, rule_id, held_back and objects of all of them; changes has before, after and objects of what was not decided like
    this already, before being null for what had no decision. file is the one that has those, None where there is none.
    """

    policy: str
    policy_hash: str
    counts: pl.DataFrame
    changes: pl.DataFrame
    file: str | None

    @property
    def turned_total(self) -> int:
        """How many objects have another decision than before, or their first."""
        return int(self.changes.filter(pl.col("before").ne_missing(pl.col("after")))["objects"].sum())

    @property
    def objects(self) -> int:
        """How many objects there are decisions of."""
        return int(self.counts["objects"].sum())

    @property
    def by_decision(self) -> dict[str, int]:
        """How many objects each decision has."""
        totals = self.counts.group_by("decision").agg(pl.col("objects").sum()).sort("decision")
        return dict(totals.iter_rows())


@dataclass(frozen=True, slots=True)
class Difference:
    """What two policies decide differently of the same evidence.

    flips has before, after, rule_before, rule_after, objects and examples, which are keys; hashes are those of both policies.
    """

    before_hash: str
    after_hash: str
    flips: pl.DataFrame

    @property
    def objects(self) -> int:
        """How many objects flip."""
        return int(self.flips["objects"].sum())


def read_policy(file: Path) -> PolicyText:
    """The policy in a file. Raises PolicyError that names line and reason, also for what its conditions cannot ask."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PolicyError(f"the policy {file} cannot be read: {why}") from error
    told = parse_policy(text, str(file))
    Judging(told, "").check()
    return told


def find_policy(results: ResultStore, policy_hash: str) -> PolicyText:
    """A policy that has decided here before. Raises PolicyError where none has."""
    text = results.get(policy_name(policy_hash)) if policy_hash.isalnum() and policy_hash.isascii() else None
    if text is None:
        raise PolicyError(f"{policy_hash} is neither a policy file nor the hash of a policy that has decided in {results.url}")
    told = parse_policy(text.decode(), f"policy {policy_hash}")
    Judging(told, "").check()  # there is more in the results than what is registered
    return told


def decide(results: ResultStore, open_lake: Callable[[], DuckDBPyConnection], run: Run, told: PolicyText, now: datetime) -> Decided:
    """Decide about every object version of the run's organisation, and write what has changed in the name of the run.

    Raises PolicyError for a condition that breaks off over the rows, and what the store raises.
    """
    policy = told.policy
    if not results.exists(policy_name(policy.policy_hash)):
        results.put(policy_name(policy.policy_hash), told.text.encode())
    with _lake(open_lake) as lake:
        rows = Judging(told, run.org).judge(lake)
        found = frame_of(counts(lake, rows))
        changed = make_changed(lake, rows)
        summed = frame_of(changes(lake, changed))
        file = _write(results, run, lake, changed, policy, now) if summed.height else None
        return Decided(policy.name, policy.policy_hash, found, summed, file)


def difference(open_lake: Callable[[], DuckDBPyConnection], org: str, before: PolicyText, after: PolicyText) -> Difference:
    """What flips from one policy to the other over all that is known of an organisation's objects. Nothing is written."""
    with _lake(open_lake) as lake:
        rows = [Judging(told, org, name).judge(lake) for told, name in ((before, "judged_before"), (after, "judged_after"))]
        return Difference(before.policy.policy_hash, after.policy.policy_hash, frame_of(flips(lake, *rows)))


@contextmanager
def _lake(open_lake: Callable[[], DuckDBPyConnection]) -> Iterator[DuckDBPyConnection]:
    """The lake for the block. Raises ConfigurationError where its files cannot be read."""
    try:
        with open_lake() as lake:
            yield lake
    except DuckDBError as error:
        raise ConfigurationError(f"the results cannot be read: {one_line(error)}; soundcheck verify says more") from error


def part_name(results: ResultStore, dataset: str, run: Run, letter: str) -> str:
    """The next name of a file of a run that may leave several: a run that is taken up again decides again."""
    number = 1
    while results.exists(partition_name(datasets()[dataset], run.scan_date, f"{run.run_id}-{letter}{number:04d}")):
        number += 1
    return f"{letter}{number:04d}"


def _write(results: ResultStore, run: Run, lake: DuckDBPyConnection, changed: str, policy: Policy, now: datetime) -> str:
    part = part_name(results, DATASET, run, "d")
    file = partition_name(datasets()[DATASET], run.scan_date, f"{run.run_id}-{part}")
    note(results, Untold(file, run.org, run.run_id, now, policy.name, policy.policy_hash))
    with rows_sink(results, DATASET, run.run_id, run.scan_date, part) as sink:
        for table in changed_rows(lake, changed, run.run_id, now):
            sink.write(_with_places(table))
    return file


def _with_places(table: pa.Table) -> pa.Table:
    """The rows with the identity of their places, which the quarantine does not have."""
    if not table["object_key_id"].null_count:
        return table
    frame = frame_of(table)
    ids = [known or object_key_id(bucket, key) for known, bucket, key in frame.select("object_key_id", "bucket", "key").iter_rows()]
    return frame.with_columns(pl.Series("object_key_id", ids, dtype=pl.String)).to_arrow()
