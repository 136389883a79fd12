"""What a stored file of decisions or of answers has changed, for those who are told of it."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from connectors.lake.changes import change_counts, changed_by_answers, changed_by_decisions, first_changes
from connectors.lake.query import one_line
from connectors.lake.soundness import READER_ERRORS
from connectors.lake.store import ResultStore
from connectors.lake.untold import Untold
from moderation.errors import ConfigurationError
from tasks.frames import frame_of

LISTED = 10_000
"""Changes that are told one by one: of more there is the file."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a file has changed. counts has before, after and objects; listed the first LISTED of those objects, the most urgent first."""

    of: Untold
    counts: pl.DataFrame
    listed: pl.DataFrame

    @property
    def total(self) -> int:
        """How many objects have another decision than before, or their first."""
        return int(self.counts["objects"].sum())


def read_changes(results: ResultStore, open_lake: Callable[..., DuckDBPyConnection], untold: Untold) -> Changes:
    """Work out what a file has changed; open_lake as that of a desk. Raises ConfigurationError where its lake cannot be read."""
    changed_by = changed_by_answers if untold.policy is None else changed_by_decisions
    try:
        with open_lake(only=("decisions", "review_answers")) as lake:
            changed = changed_by(lake, results, untold.file)
            return Changes(untold, frame_of(change_counts(lake, changed)), frame_of(first_changes(lake, changed, LISTED)))
    except DuckDBError as error:
        raise ConfigurationError(f"the results cannot be read: {one_line(error)}; soundcheck verify says more") from error
    except READER_ERRORS as error:
        raise ConfigurationError(f"{untold.file} cannot be read: {error}; soundcheck verify says more") from error
