"""What the name of a file in the lake says that is in it."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from enum import Enum, auto

from connectors.lake.columns import Dataset
from connectors.lake.current import CURRENT_FOLDER, current_dataset
from connectors.lake.packages import RUNS_FOLDER, partition_name, publishing_order
from connectors.lake.schemas import ENDPOINT_DATASETS, PARTITION, datasets

_RUN = r"\d{8}T\d{6}Z-[0-9a-f]{6}"
_PARTITIONED = re.compile(
    rf"(?P<dataset>\w+)/{PARTITION}=(?P<scan_date>\d{{4}}-\d\d-\d\d)/(?P<run_id>{_RUN})-(?P<part>\w+)\.parquet", re.ASCII
)
_MERGED = re.compile(rf"(?P<dataset>\w+)/{PARTITION}=(?P<scan_date>\d{{4}}-\d\d-\d\d)/merged-(?P<digest>[0-9a-f]{{16}})\.parquet", re.ASCII)
_CURRENT = re.compile(rf"{CURRENT_FOLDER}/(?P<current>\w+)-(?P<digest>[0-9a-f]{{16}})\.parquet", re.ASCII)
_OF_RUN = re.compile(rf"{RUNS_FOLDER}/(?P<run_id>{_RUN})/(?P<stem>\w+)\.parquet", re.ASCII)
_OWN_OF_RUN = re.compile(
    rf"{RUNS_FOLDER}/{_RUN}/(alive|(chosen|held)\.parquet|shards/\d+/[\w-]+\.json|listing/(listing\.json|\d+-\d+\.parquet))", re.ASCII
)
"""What only a run itself reads again: its sign of life, what a predicate has chosen and what holds it, what workers report, a manifest that
is being written."""
FLAGGED_SHEET = "flagged.csv"
"""The file of a report that has the ids of all objects in it."""
_REPORT = re.compile(rf"{RUNS_FOLDER}/{_RUN}/(report\.(html|json)|flagged\.(csv|parquet))", re.ASCII)
"""What only people read of a run."""
SPOOL_FOLDER = "_spool"
"""Where the spool lies that all hosts of a lake share."""
_SPOOLED = re.compile(rf"{SPOOL_FOLDER}/(?P<damaged>damaged/)?[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}", re.ASCII)
_PACKAGE = re.compile(r"p\d{4,}", re.ASCII)
_RUN_PARTS = {
    "runs": re.compile("start|end"),
    "quarantine": re.compile("plan|release"),
    "decisions": re.compile(r"d\d{4,}", re.ASCII),
    "review_answers": re.compile(r"a\d{4,}", re.ASCII),
}
"""The files that a run writes besides its packages, by dataset."""
_NO_DAY = date.min
_CANARY = re.compile(r"_canary-[0-9a-f]{16}", re.ASCII)
POLICIES_FOLDER = "_policies"
_POLICY = re.compile(rf"{POLICIES_FOLDER}/[0-9a-f]{{16}}\.toml", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A Parquet file of a dataset by its name: of which run, and of which package, empty where it belongs to the run alone.

    day is that of its partition, below `_runs/` the one on which its run began. digest is that of the packages that a merged file is of,
    which has neither run nor package; or of the files that one of the materialised `current` is made of, which has no day either.
    """

    dataset: Dataset
    run_id: str
    package: str
    day: date
    digest: str = ""

    @property
    def is_copy(self) -> bool:
        """Whether it is a file of the materialised `current`, which can be made again of others."""
        return self.day == _NO_DAY

    @property
    def is_of_its_day(self) -> bool:
        """Whether its run began on that day."""
        return bool(self.digest) or _day_of(self.run_id) == self.day


def place_of(name: str) -> Place | None:
    """What a name says, None for a name that no dataset's file has."""
    copy = _CURRENT.fullmatch(name)
    return _place_of_copy(copy["current"], copy["digest"]) if copy else _place_of_rows(name)


def _place_of_rows(name: str) -> Place | None:
    every = datasets()
    found = _PARTITIONED.fullmatch(name) or _MERGED.fullmatch(name) or _OF_RUN.fullmatch(name)
    if found is None:
        return None
    said = found.groupdict()
    run_id = said.get("run_id", "")
    try:
        day = date.fromisoformat(said["scan_date"]) if "scan_date" in said else _day_of(run_id)
    except ValueError:
        return None
    if "stem" in said:
        kind = next((dataset for dataset in every.values() if not dataset.partitioned and dataset.stem == said["stem"]), None)
        return None if kind is None else Place(kind, run_id, "", day)
    kind, part = every.get(said["dataset"]), said.get("part", "")
    if "digest" in said:
        return Place(kind, "", "", day, said["digest"]) if kind in (*publishing_order(), every["review_answers"]) else None
    if kind in publishing_order() and _PACKAGE.fullmatch(part):
        return Place(kind, run_id, f"{run_id}-{part}", day)
    of_run = _RUN_PARTS.get(kind.name) if kind else None
    return Place(kind, run_id, "", day) if kind and of_run and of_run.fullmatch(part) else None


def _place_of_copy(dataset: str, digest: str) -> Place | None:
    kind = next((each for each in map(current_dataset, ENDPOINT_DATASETS) if each.name == dataset), None)
    return None if kind is None else Place(kind, "", "", _NO_DAY, digest)


def merged_name(dataset: Dataset, day: date, packages: Collection[str]) -> str:
    """The name of the file that packages of a day are merged into."""
    return partition_name(dataset, day, f"merged-{members_digest(packages)}")


def members_digest(members: Collection[str]) -> str:
    """The packages of a merged file, or the files that a copy is made of, in 16 hex digits."""
    return hashlib.blake2b("\n".join(sorted(members)).encode(), digest_size=8).hexdigest()


def _day_of(run_id: str) -> date:
    """The UTC date of a run's start. Raises ValueError where its name begins with none."""
    return date.fromisoformat(run_id[:8])


def policy_name(policy_hash: str) -> str:
    """The name of the text of a policy."""
    return f"{POLICIES_FOLDER}/{policy_hash}.toml"


def is_own_of_run(name: str) -> bool:
    """Whether it is a file of a run that is no dataset's, and in its place."""
    return _OWN_OF_RUN.fullmatch(name) is not None


class Spooled(Enum):
    """What an entry of the shared spool is."""

    WAITING = auto()
    """A session that is not published yet."""
    DAMAGED = auto()
    """One that could not be read back and was set aside."""


def spooled_by(name: str) -> Spooled | None:
    """What entry of the shared spool a name is, None for one that is none."""
    found = _SPOOLED.fullmatch(name)
    return found and (Spooled.DAMAGED if found["damaged"] else Spooled.WAITING)


def is_canary(name: str) -> bool:
    """Whether it is what a run writes at its start to see whether it may."""
    return _CANARY.fullmatch(name) is not None


def is_policy(name: str) -> bool:
    """Whether it is the text of a policy, in its place."""
    return _POLICY.fullmatch(name) is not None


def is_report(name: str) -> bool:
    """Whether it is of a run's report for people, and in its place."""
    return _REPORT.fullmatch(name) is not None
