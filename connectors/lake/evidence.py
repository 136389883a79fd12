"""The parts of the view evidence_latest that every endpoint adds to it: what a rule of a policy can ask about."""

from collections.abc import Iterator
from string import Template

from connectors.lake.schemas import ENDPOINT_DATASETS
from moderation.endpoints import ENDPOINTS, Endpoint

OBJECT = ("object_key_id", "org", "bucket", "key", "version_id", "etag", "size_bytes", "last_modified")
"""What every result says of its object."""
OF_QUARANTINE = ("org", "bucket", "key", "version_id", "etag")
"""What of that the quarantine says, too."""
FACTS = ("session_id", "finished_at", "duration_ms", "covered_ms", "evidence", "quality_flags")
"""What every result says of itself, under the name of its endpoint."""
_HELD_REASON = Template("max(CASE WHEN endpoint = '$endpoint' THEN reason END) AS ${endpoint}_quarantine_reason")
_TOLD = Template("CASE WHEN $endpoint.session_id IS NOT NULL THEN coalesce(of_$endpoint.$column, 0) END AS $column")
_PARTS = Template("""LEFT JOIN (
    SELECT session_id, $columns
    FROM segments
    WHERE endpoint = '$endpoint'
    GROUP BY session_id
) AS of_$endpoint ON of_$endpoint.session_id = $endpoint.session_id""")


def evidence_columns() -> str:
    """The columns besides object_id."""
    return ",\n    ".join([*_of_object(), *(column for endpoint in ENDPOINT_DATASETS for column in _of_endpoint(endpoint))])


def evidence_source() -> str:
    """What they are of: the newest results of every endpoint side by side, with what is held and what segments add up to."""
    first, *others = (f"{endpoint}_latest AS {endpoint}" for endpoint in ENDPOINT_DATASETS)
    reasons = ", ".join(_HELD_REASON.substitute(endpoint=endpoint) for endpoint in ENDPOINT_DATASETS)
    facts = ", ".join(f"max({name}) AS {name}" for name in OF_QUARANTINE)
    held = f"(\n    SELECT object_id, {facts}, {reasons}\n    FROM quarantined_now\n    GROUP BY object_id\n) AS held"  # noqa: S608 - names of ours
    joined = "\n".join([first, *(f"FULL JOIN {each} USING (object_id)" for each in (*others, held))])
    return "\n".join([joined, *_segment_joins()])


def sound_columns(endpoint: Endpoint, sound: str) -> dict[str, str]:
    """The columns about segments with a sound in them, each with the expression that it is over those of a session."""
    kinds = ", ".join(f"'{kind}'" for kind in endpoint.kinds_with(sound))
    length = f"CASE WHEN kind IN ({kinds}) THEN end_time_ms - start_time_ms END"
    return {
        f"{sound}_segments": f"count({length})",
        f"{sound}_segments_ms": f"CAST(sum({length}) AS BIGINT)",
        f"{sound}_longest_ms": f"max({length})",
    }


def figure_names(endpoint: str) -> dict[str, str]:
    """An endpoint's own figures with the names that they have in the view: their own, where no endpoint before it has the same."""
    taken: set[str] = set()
    for name, kind in ENDPOINT_DATASETS.items():
        if name == endpoint:
            break
        taken.update(kind.figures)
    return {figure: f"{endpoint}_{figure}" if figure in taken else figure for figure in ENDPOINT_DATASETS[endpoint].figures}


def _of_object() -> Iterator[str]:
    for name in OBJECT:
        sources = [*ENDPOINT_DATASETS, *(["held"] if name in OF_QUARANTINE else [])]
        yield f"coalesce({', '.join(f'{source}.{name}' for source in sources)}) AS {name}"


def _of_endpoint(name: str) -> Iterator[str]:
    yield from (f"{name}.{fact} AS {name}_{fact}" for fact in FACTS)
    yield f"held.{name}_quarantine_reason"
    yield from (f"{name}.{figure} AS {as_named}" for figure, as_named in figure_names(name).items())
    yield from (_TOLD.substitute(endpoint=name, column=column) for column in _sums(name))


def _segment_joins() -> Iterator[str]:
    for name in ENDPOINT_DATASETS:
        if sums := _sums(name):
            columns = ", ".join(f"{expression} AS {column}" for column, expression in sums.items())
            yield _PARTS.substitute(endpoint=name, columns=columns)


def _sums(name: str) -> dict[str, str]:
    endpoint = ENDPOINTS[name]
    return {column: expression for sound in endpoint.sounds for column, expression in sound_columns(endpoint, sound).items()}
