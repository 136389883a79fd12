"""The script that a good engineer writes in an afternoon: asyncio, a semaphore, three tries, sending beside receiving, one Parquet."""

import asyncio
import json
from urllib.parse import urlencode

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import websockets

PATH = "/api/velma-2-music-detection-streaming"
CHUNK = 64 * 1024
TRIES = 3


async def analyse(url, api_key, audio_format, audio):
    """The frames of one object, and its summary."""
    query = urlencode({"api_key": api_key, "audio_format": audio_format})
    frames = []
    async with websockets.connect(f"{url}{PATH}?{query}", max_size=None) as ws:

        async def send():
            for start in range(0, len(audio), CHUNK):
                await ws.send(audio[start : start + CHUNK])
            await ws.send("")

        sending = asyncio.create_task(send())
        try:
            async for text in ws:
                message = json.loads(text)
                if message["type"] == "frame":
                    frames.append(message["frame"])
                elif message["type"] == "done":
                    return frames, message
                elif message["type"] == "error":
                    raise RuntimeError(message["error"])
            raise RuntimeError("closed before done")
        finally:
            sending.cancel()


async def analyse_object(s3, bucket, key, url, api_key, slots):
    """One object's rows and its summary, with another try after whatever goes wrong."""
    failed = ""
    for attempt in range(TRIES):
        try:
            async with slots:
                answer = await asyncio.to_thread(s3.get_object, Bucket=bucket, Key=key)
                audio = await asyncio.to_thread(answer["Body"].read)
                frames, done = await analyse(url, api_key, key.rpartition(".")[2], audio)
            return [{"key": key, **frame} for frame in frames], {"key": key, **done}
        except Exception as error:  # noqa: BLE001 - as such scripts do
            print(f"{key}: {error!r}")
            failed = str(error)
            await asyncio.sleep(2**attempt)
    return [], {"key": key, "error": failed}


async def scan(bucket, prefix, out, url, api_key, limit):
    """Analyse everything below a prefix, so many at a time, and write the frames and summaries of all of it."""
    s3 = boto3.client("s3")
    slots = asyncio.Semaphore(limit)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    results = await asyncio.gather(*(analyse_object(s3, bucket, key, url, api_key, slots) for key in keys))
    pq.write_table(pa.Table.from_pylist([row for rows, _ in results for row in rows]), f"{out}/frames.parquet")
    pq.write_table(pa.Table.from_pylist([summary for _, summary in results]), f"{out}/summaries.parquet")


def main(*arguments):
    asyncio.run(scan(*arguments))
