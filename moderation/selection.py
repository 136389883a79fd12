"""Which objects of a source a run is about, and what becomes of the others: they are left out, each for one reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from moderation.catalogue import SIDECAR_SUFFIX, AudioObject
from moderation.outcomes import Reason

DEFAULT_CLASS = "STANDARD"
"""The storage class of an object whose source names none."""


class LeftOut(StrEnum):
    """Why something that a source shows is not in the manifest."""

    NOT_INCLUDED = "not_included"
    """No include glob matches its key."""
    EXCLUDED = "excluded"
    """An exclude glob matches its key."""
    SIZE = "size"
    MODIFIED = "modified"
    STORAGE_CLASS = "storage_class"
    OLD_VERSION = "old_version"
    """A newer version lies in its place."""
    DELETE_MARKER = "delete_marker"
    """It was deleted: what an inventory of versions shows is the mark of that."""
    FOREIGN = "foreign"
    """It lies in what belongs to another organisation."""
    GONE = "gone"
    """A key list names it, and it is not there."""
    LINK = "link"
    """A symbolic link to a folder, or out of the folder that is scanned."""
    NO_FILE = "no_file"
    """A device, socket or pipe."""

    @property
    def reason(self) -> Reason:
        """The same as an outcome of the run."""
        return Reason.GONE if self is LeftOut.GONE else Reason.FILTERED


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters; an object must pass all of them. What is empty or None lets everything pass.

    Globs are those of fnmatch on the whole key, case and all: `*` also matches `/` and line ends. Sizes are in bytes, both ends
    included; modified_until is the first instant that is too late. all_versions also takes old versions, where a source shows them.
    belongs tells by bucket and key whether an object is the organisation's own.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    min_bytes: int | None = None
    max_bytes: int | None = None
    modified_from: datetime | None = None
    modified_until: datetime | None = None
    storage_classes: frozenset[str] = frozenset()
    all_versions: bool = False
    belongs: Callable[[str, str], bool] | None = None

    def leaves_out(self, item: AudioObject) -> LeftOut | None:
        """The first filter that an object does not pass; None for one that passes."""
        return self._place_leaves_out(item.bucket, item.key) or self._facts_leave_out(item)

    def may_be_needed(self, item: AudioObject) -> bool:
        """Whether an object may be the sidecar of one that passes: its own size and times say nothing then.

        Whether there is such an object only the whole manifest tells: a plan asks `leaves_out` again for what is no sidecar after all, and
        leaves it as `filtered`.
        """
        return item.key.endswith(SIDECAR_SUFFIX) and self._place_leaves_out(item.bucket, item.key.removesuffix(SIDECAR_SUFFIX)) is None

    def _place_leaves_out(self, bucket: str, key: str) -> LeftOut | None:
        if self.belongs is not None and not self.belongs(bucket, key):
            return LeftOut.FOREIGN
        if self.include and not any(fnmatchcase(key, glob) for glob in self.include):
            return LeftOut.NOT_INCLUDED
        return LeftOut.EXCLUDED if any(fnmatchcase(key, glob) for glob in self.exclude) else None

    def _facts_leave_out(self, item: AudioObject) -> LeftOut | None:
        if not (self.min_bytes or 0) <= item.size_bytes <= (item.size_bytes if self.max_bytes is None else self.max_bytes):
            return LeftOut.SIZE
        if self.modified_from is not None and item.last_modified < self.modified_from:
            return LeftOut.MODIFIED
        if self.modified_until is not None and item.last_modified >= self.modified_until:
            return LeftOut.MODIFIED
        if self.storage_classes and (item.storage_class or DEFAULT_CLASS) not in self.storage_classes:
            return LeftOut.STORAGE_CLASS
        return None


EVERYTHING = Selection()
"""No filter at all."""
