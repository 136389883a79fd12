from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from connectors.s3 import S3Caller, S3Settings, s3_client
from list_api import ListApi, list_api


@pytest.fixture
def calling(monkeypatch, tmp_path) -> Callable[..., AbstractAsyncContextManager[S3Caller]]:
    """Serves an API and gives a caller of it, which tries so often, or once."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "soundcheck-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")

    @asynccontextmanager
    async def calling(api: ListApi, attempts: int = 1) -> AsyncIterator[S3Caller]:
        with list_api(api) as url:
            client = s3_client(S3Settings(endpoint_url=url, region="us-east-1", max_attempts=attempts))
            async with S3Caller(client, threads=8) as caller:
                yield caller
            client.close()

    return calling
