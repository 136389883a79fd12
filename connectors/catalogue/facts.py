"""What a row of a list or an inventory says about an object, whatever its columns are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moderation.catalogue import AudioObject

_NAMES = {
    "key": "key",
    "bucket": "bucket",
    "versionid": "version_id",
    "etag": "etag",
    "size": "size_bytes",
    "sizebytes": "size_bytes",
    "lastmodified": "last_modified",
    "lastmodifieddate": "last_modified",
    "storageclass": "storage_class",
    "islatest": "is_latest",
    "isdeletemarker": "is_delete_marker",
}
"""Our columns, those of S3's inventories (CSV: VersionId, Parquet: version_id) and the words of its list API; case and underscores are no
matter."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One row: a key and whatever else is known, None what is not."""

    key: str
    bucket: str | None = None
    version_id: str | None = None
    etag: str | None = None
    size_bytes: int | None = None
    last_modified: datetime | None = None
    storage_class: str | None = None
    is_latest: bool = True
    is_delete_marker: bool = False

    def object(self, bucket: str) -> AudioObject | None:
        """The object in a bucket, unless the row names one itself; None where size, etag or time are not known."""
        if self.etag is None or self.size_bytes is None or self.last_modified is None:
            return None
        return AudioObject(
            self.bucket or bucket, self.key, self.etag, self.size_bytes, self.last_modified, self.version_id, self.storage_class
        )


def column(name: str) -> str | None:
    """The fact that a column holds, None for a column of something else."""
    return _NAMES.get(name.strip().lower().replace("_", "").replace("-", ""))


def facts(row: Mapping[str, Any]) -> Facts:
    """The facts in a row by name; empty texts are unknown. Raises ValueError for a row without a key or with something unreadable."""
    known: dict[str, Any] = {name: _READERS[name](value) for name, value in row.items() if value is not None and value != ""}
    if "key" not in known:
        raise ValueError("it has no key")
    return Facts(**known)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004 - of a row, as every fault of one
    value.encode()  # half of a surrogate pair, as JSON may escape it, is none
    return value


def _whole(value: Any) -> int:
    number = int(value)
    if number < 0 or (isinstance(value, float) and value != number):
        raise ValueError(f"{value!r} is no size in bytes")
    return number


def _instant(value: Any) -> datetime:
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if word not in {"true", "false"}:
        raise ValueError(f"{value!r} is neither true nor false")
    return word == "true"


_READERS: dict[str, Callable[[Any], Any]] = {
    "key": _text,
    "bucket": _text,
    "version_id": _text,
    "etag": lambda value: _text(value).strip('"'),
    "size_bytes": _whole,
    "last_modified": _instant,
    "storage_class": _text,
    "is_latest": _flag,
    "is_delete_marker": _flag,
}
