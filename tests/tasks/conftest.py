import pytest

from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client
from copies import BUCKET


@pytest.fixture(scope="module")
def local_s3():
    """An S3, to which the environment leads."""
    with LocalS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def s3(local_s3):
    """A client of it, and a bucket."""
    client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region=local_s3.region))
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()
