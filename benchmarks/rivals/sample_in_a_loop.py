"""The vendor's sample put in a loop: one object after the other, each sent whole in pieces of half a second, and only then listened to."""

import asyncio
import json
from urllib.parse import urlencode

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import websockets

PATH = "/api/velma-2-music-detection-streaming"
PIECE = 16_000


async def analyse(url, api_key, audio_format, body):
    """The frames of one object."""
    query = urlencode({"api_key": api_key, "audio_format": audio_format})
    frames = []
    async with websockets.connect(f"{url}{PATH}?{query}") as ws:
        while piece := body.read(PIECE):
            await ws.send(piece)
        await ws.send("")
        async for text in ws:
            message = json.loads(text)
            if message["type"] == "frame":
                frames.append(message["frame"])
            elif message["type"] == "done":
                break
            elif message["type"] == "error":
                raise RuntimeError(message["error"])
    return frames


async def scan(bucket, prefix, out, url, api_key, limit):  # noqa: ARG001 - it knows only one at a time
    """Analyse everything below a prefix, and write the frames of all of it."""
    s3 = boto3.client("s3")
    rows = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            key = entry["Key"]
            body = s3.get_object(Bucket=bucket, Key=key)["Body"]
            rows += [{"key": key, **frame} for frame in await analyse(url, api_key, key.rpartition(".")[2], body)]
    pq.write_table(pa.Table.from_pylist(rows), f"{out}/frames.parquet")


def main(*arguments):
    asyncio.run(scan(*arguments))
