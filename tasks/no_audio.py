"""What an earlier run of the same sources has found to be no audio: it is looked at no more while its bytes stay the same.

There is no dataset of it: a plan says it of what was looked at and of what was known, so the newest plan says it of all.
"""

from dataclasses import dataclass

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.store import ResultStore
from moderation.outcomes import Reason
from tasks.frames import find_frame
from tasks.history import IDENTITY

RUNS_BACK = 20
"""How many earlier runs are asked for a plan: the newest may have ended before they had one."""


@dataclass(frozen=True, slots=True)
class Alike:
    """What runs have in common whose plans are believed: another version of the code may know audio that this one does not."""

    org: str
    source: str
    code_version: str


def known_no_audio(results: ResultStore, alike: Alike, lake: DuckDBPyConnection) -> pl.DataFrame:
    """The (object_id, params_hash) that the newest plan of such runs calls no audio; plans that are no run's have no say."""
    query = """
        SELECT run_id FROM runs WHERE org = ? AND source = ? AND code_version = ?
        GROUP BY run_id ORDER BY max(started_at) DESC LIMIT ?
    """
    for (run_id,) in lake.execute(query, [alike.org, alike.source, alike.code_version, RUNS_BACK]).fetchall():
        if (plan := find_frame(results, run_id, "plan", [*IDENTITY, "reason"])) is not None:
            return plan.filter(pl.col("reason") == Reason.NOT_AUDIO.value).select(IDENTITY).unique()
    return pl.DataFrame(schema=dict.fromkeys(IDENTITY, pl.String))
