"""Lists a catalogue into an immutable Parquet manifest, the list that everything after it works from."""

import asyncio
from collections.abc import Iterable
from typing import Any

from connectors.audio_store import AudioStore
from connectors.lake.packages import rows_sink
from connectors.lake.store import ResultStore
from connectors.s3 import S3Uri
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError
from tasks.progress import Progress
from tasks.records import Run


async def list_catalogue(audio: AudioStore, results: ResultStore, source: S3Uri, run: Run, progress: Progress) -> int:
    """Write the manifest of everything below a prefix and return how many objects that is.

    Raises ConfigurationError for a missing bucket or an empty prefix, AccessDeniedError or UnreachableError where S3 says so.
    """
    progress.step = f"listing {source}"
    with rows_sink(results, "manifests", run.run_id, run.scan_date, "manifest") as sink:
        async for page in audio.pages(source):
            await asyncio.to_thread(sink.write, list(manifest_rows(page)))
            progress.listed += len(page)
        if progress.listed == 0:
            raise ConfigurationError(f"there is nothing below {source}: check the prefix (it is taken literally, case and all)")
    return progress.listed


def manifest_rows(page: Iterable[AudioObject]) -> Iterable[dict[str, Any]]:
    """Rows of `manifests` for listed objects."""
    for item in page:
        yield {
            "bucket": item.bucket,
            "key": item.key,
            "version_id": item.version_id,
            "etag": item.etag,
            "size_bytes": item.size_bytes,
            "last_modified": item.last_modified,
            "storage_class": item.storage_class,
            "object_id": item.object_id,
            "object_key_id": item.object_key_id,
        }
