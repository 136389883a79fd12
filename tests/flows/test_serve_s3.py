"""`soundcheck serve-s3`: the S3 of a trial, as a process."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from connectors.s3 import S3Settings, s3_client
from flows.cli import run
from moderation.outcomes import ExitCode

RUN = "import sys; from flows.cli import main; main()"

pytestmark = pytest.mark.net


@pytest.mark.torture
def test_it_has_a_catalogue_and_room_for_results_and_ends_when_told(tmp_path, monkeypatch):
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    command = [sys.executable, "-c", RUN, "serve-s3", "--port", "0", "--catalogue", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            for name, value in told["environment"].items():
                monkeypatch.setenv(name, value)
            client = s3_client(S3Settings())
            assert [entry["Key"] for entry in client.list_objects_v2(Bucket="catalogue")["Contents"]] == ["clip.wav"]
            assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0
            client.close()
            os.kill(told["pid"], signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_port_that_is_taken_is_said(tmp_path, capsys):
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve-s3", "--port", port, "--catalogue", str(tmp_path)]) == ExitCode.CONFIGURATION
    assert f"port {port}" in capsys.readouterr().err
