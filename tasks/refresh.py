"""Keeps the materialised `current` of the summaries: what compaction does at its end, and every run where there is much."""

import logging

from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from connectors.lake.refresh import refresh
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.store import ResultStore
from moderation.errors import SoundcheckError

logger = logging.getLogger("soundcheck.current")
FEW_FILES = 16
"""Packages that a run does not begin a `current` for: the views rank their 32,000 sessions in some 0.03 s.

Made anew it takes as long as there are objects, 18 CPU-seconds for a million: less than to list them.
"""


def keep_current(store: ResultStore, *, few_files: int = 0) -> list[str]:
    """Make what is not there, and return its names; few_files as in `refresh`. Raises what the store raises."""
    made = (refresh(store, endpoint, few_files=few_files) for endpoint in ENDPOINT_DATASETS)
    return [name for name in made if name is not None]


def try_to_keep_current(store: ResultStore) -> None:
    """The same at the end of a run, where there is much already: it is a copy, and what keeps it from being made ends no run."""
    try:
        keep_current(store, few_files=FEW_FILES)
    except (SoundcheckError, DuckDBError, ArrowException, OSError) as error:
        logger.warning("the materialised current is not made: %s", error)
