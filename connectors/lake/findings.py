"""What can be wrong with the files of a lake, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Problem(StrEnum):
    """A kind of thing that is wrong with a file."""

    DAMAGED = "damaged"
    """Its bytes are not those that were written."""
    SCHEMA = "schema"
    """Its columns are not its dataset's."""
    MISPLACED = "misplaced"
    """Its name does not fit what is in it."""
    VALUES = "values"
    """Values are in it that its dataset does not have."""
    COUNTS = "counts"
    """Rows are missing, or there are too many."""
    ORPHANS = "orphans"
    """Rows of a session that has no summary, or the reverse."""
    TWICE = "twice"
    """A session is there twice."""
    UNFINISHED = "unfinished"
    """Its package has not been published to its end."""
    FOREIGN = "foreign"
    """It is no dataset's."""
    LEFTOVER = "leftover"
    """A write that broke off has left it."""
    COPY = "copy"
    """It is a copy of what lies elsewhere, and is not what that makes it."""
    LOST = "lost"
    """A session of the shared spool could not be read back."""
    GONE = "gone"
    """It was there when the lake was listed."""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self]


_RESTORE = (
    "restore the file from a backup or an earlier version; without one take away every file of its package, then run soundcheck ledger "
    "rebuild and scan again, which streams and pays for its sessions anew"
)
_REPORT = "soundcheck has not written it like this, unless it has a defect: restore the file, or report it"
_REMEDIES = {
    Problem.DAMAGED: _RESTORE,
    Problem.SCHEMA: f"where a newer soundcheck wrote it, verify with that one; else {_RESTORE}",
    Problem.MISPLACED: "give it back its name and place, or take it away",
    Problem.VALUES: _REPORT,
    Problem.COUNTS: _RESTORE,
    Problem.ORPHANS: _RESTORE,
    Problem.TWICE: "where a compaction broke off, run soundcheck compact again; else take away the copy",
    Problem.UNFINISHED: "let the run end, or scan again on its host, whose spool has the rest; then verify again",
    Problem.FOREIGN: "take it away: query engines may read it as results",
    Problem.LEFTOVER: "delete it",
    Problem.COPY: "delete it, which loses nothing: soundcheck compact makes it again",
    Problem.LOST: "its result is lost: soundcheck ledger give-up frees its object, with the package that waits for it; then delete it",
    Problem.GONE: "verify again when nothing else changes the lake",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a file; what says it in a few words, `name` is the file's in the lake."""

    name: str
    problem: Problem
    what: str
