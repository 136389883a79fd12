import sys

import pytest

from connectors.local_s3 import LocalS3
from postgresql import cluster
from scanning import bucket


@pytest.fixture(scope="module")
def s3_server():
    with LocalS3() as server:
        yield server


@pytest.fixture
def put(s3_server, monkeypatch):
    """Puts an object of so many seconds into an empty bucket."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with bucket() as put:
        yield put


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """The setting for each of the two databases."""
    if request.param == "sqlite":
        yield {}
        return
    try:
        with cluster() as running:
            yield {"ledger_url": running.url()}
    except LookupError as absent:
        pytest.skip(str(absent))


@pytest.fixture
def say(capsys, request):
    """Prints figures for people, whatever pytest hides."""

    def say(figures):
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {figures}\n")

    return say
