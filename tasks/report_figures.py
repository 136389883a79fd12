"""The figures of one run, or of some, read from the lake: what was scanned, what it cost, what came of it, how fast it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.schemas import ENDPOINT_DATASETS
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode
from tasks.frames import frame_of

BINS = 48
"""Steps of what is shown over time."""
REFUSAL_ROWS = 30


class NoSuchRun(ConfigurationError):
    """A run, or a range of dates without any, that the results do not have."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of some runs of one organisation. Each frame is what its column names say; times are UTC, hours of audio.

    runs: a row each, as the view runs_latest. spend: endpoint, sessions, hours, possible_hours. outcomes: endpoint, outcome, reason,
    objects, as things are by now. labels: endpoint, label, objects, share, host. decisions: decision, rule_id, held_back, objects,
    share. course: endpoint, begins, seconds, audio_hours_per_hour, sessions (at once, on average). troubles: outcome, endpoint, cause,
    http_status, close_code, error_text, sessions.
    """

    runs: pl.DataFrame
    spend: pl.DataFrame
    outcomes: pl.DataFrame
    labels: pl.DataFrame
    decisions: pl.DataFrame
    course: pl.DataFrame
    troubles: pl.DataFrame

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; instants are ISO 8601."""
        return {name: [_plain(row) for row in getattr(self, name).to_dicts()] for name in self.__slots__}


def runs_between(lake: DuckDBPyConnection, org: str, since: date | None, until: date | None) -> list[str]:
    """The runs of an organisation that began on these UTC days, both included. Raises NoSuchRun where there is none."""
    begin = datetime.combine(since or date.min, datetime.min.time(), UTC)
    end = (
        datetime.combine(until, datetime.min.time(), UTC) + timedelta(days=1)
        if until and until < date.max
        else datetime.max.replace(tzinfo=UTC)
    )
    rows = lake.execute("SELECT run_id, started_at FROM runs_latest WHERE org = ? ORDER BY run_id", [org]).fetchall()
    found = [run_id for run_id, started_at in rows if begin <= started_at < end]
    if not found:
        raise NoSuchRun(f"no run of {org} began between {since or 'the first'} and {until or 'now'}")
    return found


def find_run(lake: DuckDBPyConnection, org: str, run_id: str | None) -> str:
    """That run of an organisation, or its newest. Raises NoSuchRun."""
    rows = lake.execute(
        "SELECT run_id FROM runs_latest WHERE org = ? AND run_id = coalesce(?, run_id) ORDER BY run_id DESC LIMIT 1", [org, run_id]
    ).fetchall()
    if not rows:
        raise NoSuchRun(
            f"there is no run {run_id} of {org} in these results" if run_id else f"there is no run of {org} in these results yet"
        )
    return str(rows[0][0])


def read_figures(lake: DuckDBPyConnection, run_ids: Sequence[str]) -> Figures:
    """The figures of these runs; leaves the table `reported_objects` in the connection, which has what they planned or listed."""
    lake.register("reported_runs", pl.DataFrame({"run_id": list(run_ids)}, {"run_id": pl.String()}).to_arrow())
    lake.execute("""
        CREATE OR REPLACE TEMP TABLE reported_objects AS
        SELECT object_id FROM plan SEMI JOIN reported_runs USING (run_id)
        UNION SELECT object_id FROM manifests SEMI JOIN reported_runs USING (run_id)
    """)
    return Figures(
        runs=_frame(lake, "SELECT * FROM runs_latest SEMI JOIN reported_runs USING (run_id) ORDER BY run_id"),
        spend=_frame(lake, _SPEND),
        outcomes=_frame(lake, _OUTCOMES),
        labels=_frame(lake, _labels()),
        decisions=_frame(lake, _DECISIONS),
        course=_frame(lake, _COURSE),
        troubles=_frame(lake, _TROUBLES),
    )


def _frame(lake: DuckDBPyConnection, query: str) -> pl.DataFrame:
    return frame_of(lake.sql(query).to_arrow_table())


_SETTLED = " UNION ALL ".join(
    f"SELECT run_id, endpoint, greatest(coalesce(duration_ms, 0), covered_ms) AS settled_ms, 0 AS possible_ms FROM {kind.summaries.name}"  # noqa: S608 - names of ours
    for kind in ENDPOINT_DATASETS.values()
)
_SPEND = f"""
    WITH spent AS (
        {_SETTLED}
        UNION ALL SELECT run_id, endpoint, 0, audio_sent_ms FROM attempts WHERE outcome <> 'done'
    )
    SELECT endpoint, count(*) AS sessions, sum(settled_ms) / 3.6e6 AS hours, sum(possible_ms) / 3.6e6 AS possible_hours
    FROM spent SEMI JOIN reported_runs USING (run_id)
    GROUP BY endpoint ORDER BY endpoint
"""  # noqa: S608 - as above
_OUTCOMES = """
    WITH newest AS (
        SELECT endpoint, outcome, reason FROM outcomes SEMI JOIN reported_runs USING (run_id)
        QUALIFY row_number() OVER (PARTITION BY object_id, endpoint ORDER BY run_id DESC) = 1
    )
    SELECT endpoint, outcome, reason, count(*) AS objects FROM newest GROUP BY ALL ORDER BY endpoint, objects DESC, outcome, reason
"""
_DECISIONS = """
    SELECT decision, rule_id, held_back, count(*) AS objects, count(*) / sum(count(*)) OVER () AS share
    FROM decisions_now SEMI JOIN reported_objects USING (object_id)
    GROUP BY decision, rule_id, held_back ORDER BY objects DESC, decision, rule_id, held_back
"""
_TROUBLES = f"""
    SELECT outcome, endpoint, cause, http_status, close_code, error_text, count(*) AS sessions
    FROM attempts SEMI JOIN reported_runs USING (run_id)
    WHERE outcome IN ('refused', 'failed')
    GROUP BY ALL ORDER BY outcome DESC, sessions DESC, endpoint, cause, error_text LIMIT {REFUSAL_ROWS}
"""  # noqa: S608 - a number
_COURSE = f"""
    WITH own AS (
        SELECT endpoint, outcome, audio_sent_ms, epoch_ms(started_at) AS begins,
            greatest(epoch_ms(finished_at), epoch_ms(started_at) + 1) AS ends
        FROM attempts SEMI JOIN reported_runs USING (run_id)
    ),
    span AS (SELECT min(begins) AS first, greatest(ceil((max(ends) - min(begins)) / {BINS}.0), 1)::BIGINT AS width FROM own),
    parts AS (
        SELECT endpoint, outcome, audio_sent_ms, begins, ends, first, width,
            unnest(range((begins - first) // width, (ends - 1 - first) // width + 1)) AS bin
        FROM own, span
    ),
    shares AS (
        SELECT endpoint, outcome, audio_sent_ms, ends - begins AS lasts, first, width, bin,
            least(ends, first + (bin + 1) * width) - greatest(begins, first + bin * width) AS inside
        FROM parts
    )
    SELECT endpoint, to_timestamp((first + bin * width) / 1000.0) AS begins, width / 1000.0 AS seconds,
        sum(CASE WHEN outcome = 'done' THEN audio_sent_ms * inside / lasts ELSE 0 END) / width AS audio_hours_per_hour,
        sum(inside) / width AS sessions
    FROM shares GROUP BY endpoint, first, width, bin ORDER BY endpoint, bin
"""  # noqa: S608 - as above


def _labels() -> str:
    """What the service says that objects are, and whose service it was."""
    rows = " UNION ALL ".join(
        f"SELECT run_id, endpoint, object_id, {ENDPOINTS[name].label_field or 'NULL'} AS label, host, finished_at "  # noqa: S608 - as above
        f"FROM {kind.summaries.name}"
        for name, kind in ENDPOINT_DATASETS.items()
    )
    return f"""
        WITH newest AS (
            SELECT endpoint, label, host FROM ({rows}) SEMI JOIN reported_runs USING (run_id)
            QUALIFY row_number() OVER (PARTITION BY object_id, endpoint ORDER BY finished_at DESC) = 1
        )
        SELECT endpoint, coalesce(label, 'none') AS label, count(*) AS objects,
            count(*) / sum(count(*)) OVER (PARTITION BY endpoint) AS share, host
        FROM newest GROUP BY endpoint, label, host ORDER BY endpoint, objects DESC, label, host
    """  # noqa: S608 - as above


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
