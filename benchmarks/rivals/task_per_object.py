"""A Prefect flow with one task per object, as its documentation invites: retries by Prefect, one Parquet an object."""

import asyncio
import logging
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from one_afternoon import analyse
from prefect import flow, task


def scanning(url, api_key, limit):
    """The flow for one service; its key stays out of parameters, which Prefect keeps."""
    s3 = boto3.client("s3")
    slots = asyncio.Semaphore(limit)

    @task(retries=2, retry_delay_seconds=1)
    async def scan_object(bucket, key, out):
        async with slots:
            answer = await asyncio.to_thread(s3.get_object, Bucket=bucket, Key=key)
            audio = await asyncio.to_thread(answer["Body"].read)
            frames, _ = await analyse(url, api_key, key.rpartition(".")[2], audio)
        target = Path(out) / f"{key.replace('/', '-')}.parquet"
        pq.write_table(pa.Table.from_pylist([{"key": key, **frame} for frame in frames]), target)
        return len(frames)

    @flow
    async def scan(bucket, prefix, out):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sum(await asyncio.gather(*(scan_object(bucket, key, out) for key in keys)))

    return scan


def main(bucket, prefix, out, url, api_key, limit):
    logging.getLogger("prefect").setLevel(logging.WARNING)
    asyncio.run(scanning(url, api_key, limit)(bucket, prefix, out))
