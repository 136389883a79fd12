"""Realistic ended sessions, a lake to publish them in, and an S3 on loopback."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.lake.store import FolderStore, ResultStore, S3Store
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, S3Uri, s3_client
from ended_sessions import RUN, START, a_package, a_session
from moderation.identity import object_id, object_key_id
from moderation.results import SpooledSession

BUCKET = "results-bucket"


@pytest.fixture(scope="session")
def session() -> Callable[..., SpooledSession]:
    return a_session


@pytest.fixture(scope="session")
def package() -> list[SpooledSession]:
    return a_package()


@pytest.fixture(scope="session")
def run() -> dict[str, Any]:
    """The row of a run's start."""
    counts = (
        "objects_listed",
        "planned",
        "done",
        "quarantined",
        "skipped",
        "pending",
        "audio_ms_settled",
        "audio_ms_at_risk",
        "audio_ms_saved",
    )
    words = {"flow": "scan", "org": "acme", "source": "s3://audio/", "parameters": "{}", "fingerprint": "f", "code_version": "0.1.0"}
    return {"run_id": RUN, **words, "started_at": START, "state": "Running", **dict.fromkeys(counts, 0)}


@pytest.fixture(scope="session")
def listed() -> Callable[..., dict[str, Any]]:
    """A row of a manifest."""

    def a_listed(number: int, **more: Any) -> dict[str, Any]:
        key = f"k{number}"
        place = {"bucket": "audio", "key": key, "etag": "e", "size_bytes": number, "last_modified": START}
        return {**place, "object_id": object_id("audio", key, "e"), "object_key_id": object_key_id("audio", key), **more}

    return a_listed


def a_decision(number: int = 0, **more: Any) -> dict[str, Any]:
    identity = a_session(number).object_id
    words = {"org": "acme", "bucket": "audio", "key": f"k{number}", "etag": "e", "policy": "starter", "policy_hash": "0123456789abcdef"}
    told = {"decided_at": START, "decision": "review", "rule_id": "no_rule", "reason": "no rule holds", "priority": 0}
    return {"object_id": identity, "object_key_id": identity, **words, **told, "evidence_sessions": "", "run_id": RUN, **more}


def an_answer(number: int = 0, **more: Any) -> dict[str, Any]:
    told = {"reviewer": "ada", "answered_at": START + timedelta(hours=1), "answer": "block", "decision_before": "review"}
    return {"object_id": a_session(number).object_id, **told, "rule_id": "no_rule", "policy_hash": "0123456789abcdef", **more}


@pytest.fixture(scope="session")
def decision() -> Callable[..., dict[str, Any]]:
    """A row of decisions."""
    return a_decision


@pytest.fixture(scope="session")
def answer() -> Callable[..., dict[str, Any]]:
    """A row of review_answers."""
    return an_answer


@pytest.fixture(scope="session")
def local_s3() -> Iterator[LocalS3]:
    with LocalS3() as server:
        yield server


@pytest.fixture(scope="session")
def client(local_s3):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_s3.environment().items():
            patch.setenv(name, value)
        client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region=local_s3.region))
        yield client
        client.close()


@pytest.fixture
def s3(local_s3, client, monkeypatch):
    """A client of the local S3 with one fresh bucket; the environment leads there, too."""
    for name, value in local_s3.environment().items():
        monkeypatch.setenv(name, value)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        if found := page.get("Contents"):
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry["Key"]} for entry in found]})
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def own_s3(s3, local_s3):
    """Another client of the same, to be tampered with."""
    client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region=local_s3.region))
    yield client
    client.close()


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> ResultStore:
    """Each test on both stores."""
    if request.param == "folder":
        return FolderStore(tmp_path / "results")
    return S3Store(S3Uri.parse(f"s3://{BUCKET}/some/prefix"), request.getfixturevalue("s3"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Views are DuckDB's whichever store they look through to: on S3 they are asked in torture alone."""
    for item in items:
        if item.path.stem in {"test_query", "test_current"} and "[s3" in item.name:
            item.add_marker(pytest.mark.torture)


@pytest.fixture
def lake(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "results")
