"""Files of the lake in S3 as Arrow datasets, which take DuckDB's columns and filters: DuckDB's own S3 reader is a download away."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from botocore import UNSIGNED
from pyarrow.fs import S3FileSystem

from connectors.lake.columns import Dataset
from connectors.lake.packages import RUNS_FOLDER
from connectors.lake.schemas import PARTITION
from connectors.lake.store import S3Store
from connectors.lake.tables import RUN_ID

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_dataset(store: S3Store, dataset: Dataset, names: Sequence[str]) -> pads.Dataset:
    """The rows of a dataset in these files, with the column that tells where a file lies."""
    place = pa.schema([pa.field(PARTITION, pa.date32()) if dataset.partitioned else pa.field(RUN_ID, pa.string())])
    folder = dataset.name if dataset.partitioned else RUNS_FOLDER
    return pads.dataset(
        [_path(store, name) for name in names],
        schema=pa.unify_schemas([dataset.arrow_schema(), place]),
        filesystem=_filesystem(store.client),
        format="parquet",
        partitioning=pads.HivePartitioning(place) if dataset.partitioned else pads.DirectoryPartitioning(place),
        partition_base_dir=_path(store, folder),
    )


def s3_file(store: S3Store, dataset: Dataset, name: str) -> pads.Dataset:
    """The rows of one file whose place says nothing."""
    return pads.dataset([_path(store, name)], schema=dataset.arrow_schema(), filesystem=_filesystem(store.client), format="parquet")


def s3_footer(store: S3Store, name: str) -> pq.FileMetaData:
    """What a file's footer says, without the rest of the file. Raises what Arrow raises."""
    return pq.read_metadata(_path(store, name), filesystem=_filesystem(store.client))


def _path(store: S3Store, name: str) -> str:
    return f"{store.bucket}/{store.root}/{name}"


def _filesystem(client: "S3Client") -> S3FileSystem:
    """Arrow's S3 with what botocore has found: on its own it ignores AWS_ENDPOINT_URL and profiles (measurements.md, S3)."""
    scheme, _, host = client.meta.endpoint_url.partition("://")
    options: dict[str, Any] = {"endpoint_override": host, "scheme": scheme, "region": client.meta.region_name}
    # botocore's stubs do not know the settings that a Config was made with
    if getattr(client.meta.config, "signature_version", None) is UNSIGNED:
        options["anonymous"] = True
    elif found := boto3.session.Session().get_credentials():
        keys = found.get_frozen_credentials()
        options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
    return S3FileSystem(**options)
