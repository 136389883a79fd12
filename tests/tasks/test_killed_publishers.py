"""kill -9 of publishers at any moment, also of one of two: nothing is lost, and no reader ever sees a session twice or by half."""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from bare_globs import seen
from connectors.lake.store import open_store
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client
from copies import unexplained
from ended_sessions import a_session
from listed_runs import write_runs
from publishing import NOW, Place, leave
from tasks.verify import verify

BUCKET = "killed"
KILLS = 50
SESSIONS = 6
"""Of each package that is killed."""


def place_of(folder: Path, url: str, *, shared: bool) -> Place:
    return Place(folder, open_store(url, s3_client(S3Settings()) if "://" in url else None), shared)


def work(environment: dict[str, str], folder: Path, url: str, *, shared: bool, begun) -> None:
    """A process that publishes what is there."""
    os.environ.update(environment)
    place = place_of(folder, url, shared=shared)
    begun.set()
    place.recover()


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.fault(63, 68, 70)
@pytest.mark.parametrize(("store", "shared"), [("folder", False), ("folder", True), ("s3", False), ("s3", True)])
def test_publishers_that_are_killed_lose_nothing_and_double_nothing(tmp_path, monkeypatch, store, shared, capsys):
    with LocalS3() as server:
        environment = server.environment()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3_client(S3Settings()).create_bucket(Bucket=BUCKET)
        url = str(tmp_path / "results") if store == "folder" else f"s3://{BUCKET}/lake"
        place = place_of(tmp_path, url, shared=shared)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["publishing", "connectors.s3", "tasks.publish"])
        draw, killed, expected, looks, whole_s = random.Random(1), 0, {}, 0, 0.0
        for kill in range(KILLS + 1):
            new = [a_session(kill * SESSIONS + number, items=4) for number in range(SESSIONS)]
            asyncio.run(leave(place, new))
            expected |= {session.session_id: session for session in new}
            begun = [context.Event() for _ in range(1 + kill % 2)]
            processes = [
                context.Process(target=work, args=(environment, tmp_path, url), kwargs={"shared": shared, "begun": event})
                for event in begun
            ]
            for process in processes:
                process.start()
            assert all(event.wait(60) for event in begun)
            since = time.monotonic()
            killer = Timer(whole_s * draw.random(), processes[0].kill)
            if kill:  # the first one shows how long it takes
                killer.start()
            while any(process.is_alive() for process in processes):
                assert set(seen(place.store, tmp_path / "mirror")) <= set(expected)
                looks += 1
            whole_s = whole_s or time.monotonic() - since
            killer.cancel()
            if kill:
                killer.join()
            killed += processes[0].exitcode == -signal.SIGKILL
            for process in processes:
                process.close()
        place.recover()
        assert set(seen(place.store, tmp_path / "mirror")) == set(expected)
        write_runs(place.store, expected.values())
        findings = [finding for finding in verify(place.store, NOW, lambda *_: None).findings if finding.problem != "leftover"]
        assert findings == []
        assert asyncio.run(unexplained(place, s3_client(S3Settings()))) == []
        assert place.spool(place.store).ids() == []
        with capsys.disabled():
            sys.stdout.write(f"\n{store}, shared {shared}: {killed} of {KILLS} killed before their end, {looks} looks of the reader\n")
