"""The timelines of objects, read from the lake: what the sessions that a decision goes back to have measured."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.schemas import ENDPOINT_DATASETS
from moderation.endpoints import ENDPOINTS
from moderation.timeline import Bar, Curve, Timeline
from tasks.frames import frame_of

SPANS = 240
"""Steps of a curve: of more items each step has the highest, so that no peak is lost."""
BARS = 200
"""Segments of an object that are drawn, the longest first."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An object by its version, the sessions that are its evidence, and the stretch that its rule is about."""

    object_id: str
    sessions: Sequence[str]
    evidence: tuple[int, int] | None = None


def timelines(lake: DuckDBPyConnection, subjects: Sequence[Subject]) -> dict[str, Timeline]:
    """The timeline of each of these by its object_id; of what has no session it is empty."""
    wanted = [(subject.object_id, session) for subject in subjects for session in subject.sessions]
    shape = pl.Schema({"object_id": pl.String(), "session_id": pl.String()})
    lake.register("wanted_sessions", pl.DataFrame(wanted, shape, orient="row").to_arrow())
    durations = dict(_durations(lake).iter_rows())
    curves = _curves(lake)
    bars, more = _bars(lake)
    lake.unregister("wanted_sessions")
    return {
        each.object_id: Timeline(
            durations.get(each.object_id, 0), curves[each.object_id], bars[each.object_id], each.evidence, more.get(each.object_id, 0)
        )
        for each in subjects
    }


def _durations(lake: DuckDBPyConnection) -> pl.DataFrame:
    """The longest that any of the sessions says: milliseconds of audio."""
    rows = " UNION ALL ".join(
        f"""SELECT object_id, greatest(coalesce(duration_ms, 0), covered_ms) AS ms
        FROM {kind.summaries.name} SEMI JOIN wanted_sessions USING (object_id, session_id)"""  # noqa: S608 - names of ours
        for kind in ENDPOINT_DATASETS.values()
    )
    return frame_of(lake.sql(f"SELECT object_id, max(ms) FROM ({rows}) GROUP BY object_id").to_arrow_table())  # noqa: S608 - as above


def _curves(lake: DuckDBPyConnection) -> defaultdict[str, list[Curve]]:
    found: defaultdict[str, list[Curve]] = defaultdict(list)
    for endpoint in ENDPOINT_DATASETS:
        for kind, measured in _measures(endpoint):
            query = f"""
                WITH items AS (
                    SELECT object_id, start_time_ms, end_time_ms, {measured} AS probability,
                        max(end_time_ms) OVER (PARTITION BY object_id) AS last_ms
                    FROM {ENDPOINT_DATASETS[endpoint].items.name} SEMI JOIN wanted_sessions USING (object_id, session_id)
                )
                SELECT object_id, min(start_time_ms), max(end_time_ms), max(probability)
                FROM items
                WHERE probability IS NOT NULL AND end_time_ms > start_time_ms
                GROUP BY object_id, start_time_ms * {SPANS} // greatest(last_ms, 1)
                ORDER BY object_id, min(start_time_ms)
            """  # noqa: S608 - as above
            of_kind: defaultdict[str, list[tuple[int, int, float]]] = defaultdict(list)
            for object_id, start, end, probability in frame_of(lake.sql(query).to_arrow_table()).iter_rows():
                of_kind[object_id].append((start, end, probability))
            for object_id, points in of_kind.items():
                found[object_id].append(Curve(kind, points))
    return found


def _measures(endpoint: str) -> Iterator[tuple[str, str]]:
    """What each sound of an endpoint is measured by, from 0 to 1: the first measurement that an item has counts."""
    for track in ENDPOINTS[endpoint].tracks:
        yield track.kind, f"coalesce({', '.join(f'{name} * {factor}' for name, factor in track.tells)})"


def _bars(lake: DuckDBPyConnection) -> tuple[defaultdict[str, list[Bar]], dict[str, int]]:
    """The longest segments in their order, and how many more there are."""
    query = f"""
        SELECT object_id, kind, start_time_ms, end_time_ms, mean_prob, greatest(count(*) OVER (PARTITION BY object_id) - {BARS}, 0) AS more
        FROM segments SEMI JOIN wanted_sessions USING (object_id, session_id)
        QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY end_time_ms - start_time_ms DESC, start_time_ms) <= {BARS}
        ORDER BY object_id, start_time_ms, kind
    """  # noqa: S608 - numbers
    bars: defaultdict[str, list[Bar]] = defaultdict(list)
    more: dict[str, int] = {}
    for object_id, kind, start, end, probability, left in frame_of(lake.sql(query).to_arrow_table()).iter_rows():
        bars[object_id].append(Bar(kind, start, end, probability))
        more[object_id] = left
    return bars, more
