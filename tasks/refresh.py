"""Keeps the materialised `current` of the summaries: what compaction does at its end, and every run where there is much."""

from connectors.lake.refresh import refresh
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.store import ResultStore

FEW_FILES = 16
"""Packages that a run does not begin a `current` for: the views rank their 32,000 sessions in some 0.03 s.

Made anew it takes as long as there are objects, 18 CPU-seconds for a million: less than to list them.
"""


def keep_current(store: ResultStore, *, few_files: int = 0) -> list[str]:
    """Make what is not there, and return its names; few_files as in `refresh`. Raises what the store raises."""
    made = (refresh(store, endpoint, few_files=few_files) for endpoint in ENDPOINT_DATASETS)
    return [name for name in made if name is not None]
