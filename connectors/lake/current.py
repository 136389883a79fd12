"""The materialised `current` of the summaries: the newest result of each object version, so that nobody need rank a million of them.

It is a copy. Its name says of which files of summaries it is made, and it answers for as long as there are just these: where one came or
went since, the views rank the summaries themselves, and say the same.
"""

from string import Template

from connectors.lake.columns import Dataset, count, text
from connectors.lake.schemas import ENDPOINT_DATASETS, PARTITION
from connectors.lake.tables import table_columns

CURRENT_FOLDER = "_current"
"""Hidden from query engines by the underscore: a glob over the datasets never sees a summary twice."""
_VERSION = "version"

_LATEST = Template("SELECT $from_copy FROM $copy")
_CURRENT = Template("SELECT $from_copy FROM $copy WHERE $version = 1")
_VERSIONS = Template("""
SELECT object_id, row_number() OVER (PARTITION BY object_key_id ORDER BY last_modified DESC, finished_at DESC, session_id DESC) AS $version
FROM ${endpoint}_latest""")
_ROWS = Template("SELECT $into_copy, $version FROM ${endpoint}_latest JOIN versions USING (object_id) WHERE $of_slice ORDER BY object_id")
_DIFFERS = Template("""
WITH made AS (SELECT object_id, session_id, $version FROM ${endpoint}_latest JOIN ($versions) AS versions USING (object_id)),
kept AS (SELECT object_id, session_id, $version FROM $copy)
SELECT count(*) FROM ((FROM made EXCEPT FROM kept) UNION ALL (FROM kept EXCEPT FROM made)) AS differing""")


def current_dataset(endpoint: str) -> Dataset:
    """The columns of an endpoint's copy: those of its summaries, where they lie, and which version of its key the object is."""
    summaries = ENDPOINT_DATASETS[endpoint].summaries
    return Dataset(
        f"{summaries.name}_current",
        f"The newest of {summaries.name} for each object version: a copy, which can be made again.",
        (
            *summaries.columns,
            text(PARTITION, "The UTC date of the run's start, which the summary lies under.", "YYYY-MM-DD"),
            count(_VERSION, "Which version of its key this is, from 1, the newest.", "ordinal"),
        ),
        ("object_id",),
        partitioned=False,
    )


def current_views(endpoint: str) -> dict[str, str]:
    """The views of an endpoint by name, as the table of its copy answers them; in SQL of DuckDB."""
    return {f"{endpoint}_latest": _filled(_LATEST, endpoint), f"{endpoint}_current": _filled(_CURRENT, endpoint)}


def current_versions(endpoint: str) -> str:
    """Which version of its key each object is, from the views of an endpoint: the table `versions` of `current_rows`."""
    return _filled(_VERSIONS, endpoint)


def current_rows(endpoint: str, of_slice: str) -> str:
    """The rows of the copy in their order, of the objects that a predicate says."""
    return _filled(_ROWS, endpoint, of_slice=of_slice)


def current_differs(endpoint: str) -> str:
    """How many rows the copy has that the views do not make of the summaries, or the reverse."""
    return _filled(_DIFFERS, endpoint, versions=current_versions(endpoint))


def _filled(template: Template, endpoint: str, **more: str) -> str:
    summaries = ENDPOINT_DATASETS[endpoint].summaries
    others = [name for name in table_columns(summaries) if name != PARTITION]
    return template.substitute(
        endpoint=endpoint,
        from_copy=", ".join([*others, f"CAST({PARTITION} AS DATE) AS {PARTITION}"]),
        into_copy=", ".join([*others, f"CAST({PARTITION} AS VARCHAR) AS {PARTITION}"]),
        copy=current_dataset(endpoint).name,
        version=_VERSION,
        **more,
    )
