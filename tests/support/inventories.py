"""S3 inventories as AWS writes them, of made-up objects."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from list_api import changed, etag

SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass, EncryptionStatus"
FOLDER = "inventories/music/daily/2026-03-02T00-00Z"


@dataclass(frozen=True)
class Entry:
    """A row; what belongs to no version is that of the key's only one."""

    key: str
    version_id: str = ""
    is_latest: bool = True
    is_delete_marker: bool = False
    etag: str | None = None


def csv_part(entries: Sequence[Entry]) -> bytes:
    """A part without a header, keys URL-encoded, every field in quotes."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for entry in entries:
        facts = (
            ("", "", "", "")
            if entry.is_delete_marker
            else (len(entry.key), f"{changed(entry.key):%Y-%m-%dT%H:%M:%S}.000Z", _etag(entry), "STANDARD")
        )
        flags = (str(entry.is_latest).lower(), str(entry.is_delete_marker).lower())
        rows.writerow(["music", quote_plus(entry.key, safe="/"), entry.version_id, *flags, *facts, "SSE-S3"])
    return gzip.compress(out.getvalue().encode())


def parquet_part(entries: Sequence[Entry]) -> bytes:
    """A part with keys as they are."""
    kept = [None if entry.is_delete_marker else entry for entry in entries]
    out = io.BytesIO()
    table = pa.table(
        {
            "bucket": ["music"] * len(entries),
            "key": [entry.key for entry in entries],
            "version_id": [entry.version_id or None for entry in entries],
            "is_latest": [entry.is_latest for entry in entries],
            "is_delete_marker": [entry.is_delete_marker for entry in entries],
            "size": pa.array([entry and len(entry.key) for entry in kept], pa.int64()),
            "last_modified_date": pa.array([entry and changed(entry.key).replace(tzinfo=None) for entry in kept], pa.timestamp("ms")),
            "e_tag": pa.array([entry and _etag(entry) for entry in kept], pa.string()),
            "storage_class": ["STANDARD"] * len(entries),
            "encryption_status": ["SSE-S3"] * len(entries),
        }
    )
    pq.write_table(table, out)
    return out.getvalue()


def _etag(entry: Entry) -> str:
    return entry.etag or etag(entry.key)


WRITERS = {"CSV": csv_part, "Parquet": parquet_part}


def inventory(kind: str, *parts: Sequence[Entry], schema: str = SCHEMA) -> dict[str, bytes]:
    """The objects of an inventory by their place, `reports/` and key: parts, manifest.json and manifest.checksum."""
    ending = "csv.gz" if kind == "CSV" else "parquet"
    bodies = {f"inventories/music/daily/data/part-{number}.{ending}": WRITERS[kind](entries) for number, entries in enumerate(parts)}
    manifest = {
        "sourceBucket": "music",
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": "1772409600000",
        "fileFormat": kind,
        "fileSchema": schema if kind == "CSV" else "message s3.inventory { required binary key (STRING); }",
        "files": [{"key": key, "size": len(body), "MD5checksum": hashlib.md5(body).hexdigest()} for key, body in bodies.items()],
    }
    text = json.dumps(manifest, indent=2).encode()
    bodies |= {f"{FOLDER}/manifest.json": text, f"{FOLDER}/manifest.checksum": hashlib.md5(text).hexdigest().encode()}
    return {f"reports/{key}": body for key, body in bodies.items()}
