"""Blocking S3 calls made from asyncio, in threads of their own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from connectors.s3.failures import explain

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")


class S3Caller:
    """A client with its threads, for as long as the block runs; as many calls at once as there are threads."""

    def __init__(self, client: "S3Client", threads: int = 32) -> None:
        self.client = client
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="s3")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.threads.shutdown, wait=True, cancel_futures=True)

    async def call(self, doing: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread; its failure says what was being done."""
        failure: Exception
        try:
            return await self.run(call)
        except (ClientError, BotoCoreError, OSError) as error:
            failure = explain(error, doing)
        raise failure

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call in a thread; its failure is its own."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)
