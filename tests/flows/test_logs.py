"""The log as JSON: what each line is about, and nothing that breaks a line."""

import asyncio
import json
import logging

import pytest

from flows.logs import logging_to, logging_to_stderr
from flows.setting_types import LogFormat
from tasks.about import about

logger = logging.getLogger("soundcheck.test")


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_an_object_with_what_is_known(tmp_path):
    with logging_to(tmp_path, "INFO", LogFormat.JSON) as path:
        logger.info("before")
        with about(run="20261121T101500Z-3fa2c1", shard=3):
            logger.warning("reading %s", "a\n\x1b[31mred.wav")
        logger.error("failed", exc_info=ValueError("on purpose"))
    before, reading, failed = lines(path.read_text())
    assert before.keys() == {"at", "level", "logger", "process", "message"}
    assert (reading["run"], reading["shard"], reading["level"]) == ("20261121T101500Z-3fa2c1", 3, "WARNING")
    assert reading["message"] == "reading a\n\x1b[31mred.wav"
    assert failed["traceback"].endswith("ValueError: on purpose")
    assert "run" not in failed


async def test_sessions_side_by_side_do_not_speak_for_each_other(tmp_path):
    async def session(name):
        with about(session=name):
            await asyncio.sleep(0)
            await asyncio.to_thread(logger.info, name)

    with logging_to(tmp_path, "INFO", LogFormat.JSON) as path, about(run="r"):
        await asyncio.gather(*(session(name) for name in ("a", "b", "c")))
    said = lines(path.read_text())
    assert sorted((line["session"], line["message"], line["run"]) for line in said) == [(name, name, "r") for name in ("a", "b", "c")]


@pytest.mark.torture
async def test_what_a_scan_says_of_a_session_names_run_object_and_session(world, make_wav, tmp_path):
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 8)
    with logging_to(tmp_path, "INFO", LogFormat.JSON) as path:
        report = await world.scan(endpoints=["music"])
    about_sessions = [line for line in lines(path.read_text()) if "session" in line]
    assert about_sessions
    assert {line["run"] for line in about_sessions} == {report.run_id}
    assert all({"shard", "object"} <= line.keys() for line in about_sessions)


def test_a_worker_says_ours_once_and_on_standard_error(capsys):
    with logging_to_stderr("INFO", LogFormat.JSON), about(shard=1):
        logger.info("begun")
        logging.getLogger("httpx").info("not ours")
    [line] = lines(capsys.readouterr().err)
    assert (line["message"], line["shard"]) == ("begun", 1)
    assert logging.getLogger("soundcheck").propagate
