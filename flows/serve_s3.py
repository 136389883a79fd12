"""The local S3 as a command: a bucket with a small catalogue and one for results, until it is told to end. For trials."""

import asyncio
import os
from pathlib import Path

from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client
from flows.console import say_json, stdout
from flows.demo import Exhibit, environment, exhibits_of, put_exhibits
from flows.stopping import SIGNALS

CATALOGUE_BUCKET = "catalogue"
RESULTS_BUCKET = "results"


async def serve_s3(port: int, catalogue: Path | None, *, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigurationError for a folder that cannot be read, and a port that cannot be had."""
    ended = asyncio.Event()
    for name in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    exhibits = await asyncio.to_thread(exhibits_of, catalogue)
    with LocalS3(port) as server:
        variables = {name: value for name, value in server.environment().items() if value}
        with environment(server.environment()):
            await asyncio.to_thread(_fill, exhibits)
        _say_where(variables, len(exhibits), as_json=as_json)
        await ended.wait()


def _fill(exhibits: list[Exhibit]) -> None:
    put_exhibits(exhibits, CATALOGUE_BUCKET)
    s3_client(S3Settings()).create_bucket(Bucket=RESULTS_BUCKET)


def _say_where(variables: dict[str, str], objects: int, *, as_json: bool) -> None:
    if as_json:
        say_json(
            {"environment": variables, "catalogue": f"s3://{CATALOGUE_BUCKET}/", "results": f"s3://{RESULTS_BUCKET}/", "pid": os.getpid()}
        )
        return
    exports = "\n".join(f"export {name}={value}" for name, value in variables.items())
    told = f"s3://{CATALOGUE_BUCKET}/ has {objects} objects, s3://{RESULTS_BUCKET}/ is empty (Ctrl-C ends it, and forgets them). Elsewhere:"
    stdout.print(f"{told}\n{exports}", highlight=False, soft_wrap=True, markup=False)
