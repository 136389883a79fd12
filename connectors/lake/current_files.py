"""The files of the materialised `current`: their names are the proof that they are of all there is."""

from collections.abc import Collection

from connectors.lake.current import CURRENT_FOLDER, current_dataset
from connectors.lake.names import members_digest
from connectors.lake.store import ResultStore


def current_name(endpoint: str, summaries: Collection[str]) -> str:
    """The name of the file that is made of these files of summaries: the same ones, the same name, and the same bytes."""
    return f"{CURRENT_FOLDER}/{current_dataset(endpoint).name}-{members_digest(summaries)}.parquet"


def current_files(store: ResultStore, endpoint: str) -> list[str]:
    """What there is for an endpoint, also of other files of summaries."""
    return [name for name in store.list(f"{CURRENT_FOLDER}/") if name.startswith(f"{CURRENT_FOLDER}/{current_dataset(endpoint).name}-")]


def forget_current(store: ResultStore) -> None:
    """Delete all of it: whoever changes rows of summaries under their names does this before, and has it made again afterwards."""
    for name in list(store.list(f"{CURRENT_FOLDER}/")):
        store.delete(name)
