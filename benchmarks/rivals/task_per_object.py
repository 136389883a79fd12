"""A Prefect flow with one task per object, concurrent by map as Prefect's documentation says; retries by Prefect, one Parquet an object."""

import asyncio
import logging
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from one_afternoon import analyse
from prefect import flow, task, unmapped
from prefect.task_runners import ThreadPoolTaskRunner


def scanning(url, api_key, limit):
    """The flow for one service; its key stays out of parameters, which Prefect keeps."""
    s3 = boto3.client("s3")

    @task(retries=2, retry_delay_seconds=1)
    def scan_object(bucket, key, out):
        audio = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        frames, _ = asyncio.run(analyse(url, api_key, key.rpartition(".")[2], audio))
        target = Path(out) / f"{key.replace('/', '-')}.parquet"
        pq.write_table(pa.Table.from_pylist([{"key": key, **frame} for frame in frames]), target)
        return len(frames)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=limit))
    def scan(bucket, prefix, out):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sum(scan_object.map(unmapped(bucket), keys, unmapped(out)).result())

    return scan


def main(bucket, prefix, out, url, api_key, limit):
    logging.getLogger("prefect").setLevel(logging.WARNING)
    scanning(url, api_key, limit)(bucket, prefix, out)
