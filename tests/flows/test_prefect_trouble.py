"""What becomes of a run when Prefect goes away or calls it off: the data path goes on, or drains, and no slot leaks."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from flows import embedded_prefect as embedded_prefect_module
from flows.embedded_prefect import EmbeddedPrefect, embedded_prefect
from flows.launch import scan_as_flow
from flows.mirror import Mirror
from flows.report import Report
from flows.watch import Watch
from moderation.errors import (
    AccessDeniedError,
    ConfigurationError,
    Phase,
    ResultsNotWritable,
    SessionError,
    SoundcheckError,
    UnreachableError,
)
from moderation.outcomes import ExitCode, Reason, StopCause
from paced_scans import live_sessions, put_raw, seen
from prefect_homes import migrated_home
from tasks.progress import Progress

ROOT = Path(__file__).parents[2]
KEY = "canary-5f0e9d1c7b"
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]

pytestmark = [
    pytest.mark.torture,
    pytest.mark.prefect,
    pytest.mark.slow,
    # Prefect 3.8.8 does not close the client with which it asks the server for its default result storage
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPrefect]:
    """A server for all tests here, which this process is led to, and that tells runners of cancellations."""
    state_dir = tmp_path_factory.mktemp("prefect")
    migrated_home(state_dir)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as loop:
        patch.setitem(embedded_prefect_module._SETTINGS, "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED", "true")
        server = embedded_prefect(state_dir)
        yield loop.run(server.__aenter__())
        loop.run(server.__aexit__(None, None, None))


def without_prefect() -> dict[str, str]:
    """The environment of somebody who has set nothing about Prefect."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def server_of(parent: int) -> int:
    """The process id of the embedded Prefect server that a process has started."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"flows.embedded_prefect_server" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("it has no Prefect server")


@pytest.mark.fault(59)
async def test_killing_the_prefect_server_in_mid_run_ends_nothing_but_its_display(world, make_wav):
    put_raw(world, make_wav, 30, 2.0)
    migrated_home(world.results / "_state")
    settings = {"SOUNDCHECK_API_KEY": KEY, "SOUNDCHECK_VELMA_URL": world.velma.url, "SOUNDCHECK_PACE": "3"}
    scan = [*COMMAND, "scan", "s3://catalogue/", "--results", str(world.results), "--endpoint", "music", "--json"]
    process = await asyncio.create_subprocess_exec(
        *scan, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_prefect() | settings, cwd=ROOT
    )
    await seen(world, "done", 5)
    os.kill(server_of(process.pid), signal.SIGKILL)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["done"] == 30
    assert err.decode().count("Prefect is not reachable") == 1
    assert world.velma.journal.counts["done"] == 30
    assert await live_sessions(world) == []


async def scan_in_prefect(world, **changes: object) -> Report:
    """The flow in this process."""
    return await scan_as_flow(world.settings.model_copy(update={"endpoints": ["music"]} | changes), "s3://catalogue/", Watch())


async def flow_run_of(world):
    """What Prefect knows of the latest run."""
    from prefect import get_client  # noqa: PLC0415 - it takes seconds

    [(run_id,)] = world.ask("SELECT prefect_flow_run_id FROM runs_latest ORDER BY started_at DESC LIMIT 1")
    async with get_client() as client:
        return await client.read_flow_run(UUID(run_id))


async def test_a_run_that_is_cancelled_in_prefect_drains(prefect_server, world, make_wav, monkeypatch):
    from prefect import get_client  # noqa: PLC0415
    from prefect.states import Cancelling  # noqa: PLC0415

    monkeypatch.setattr("flows.scan.STATE_SECONDS", 0.2)
    put_raw(world, make_wav, 6, 3.0)
    scan = asyncio.create_task(scan_in_prefect(world, pace=3.0))
    await seen(world, "first_audio", 2)
    async with get_client() as client:
        await client.set_flow_run_state((await flow_run_of(world)).id, Cancelling())
    report = await scan
    streamed = world.velma.journal.counts["connect"]
    assert (report.state, report.exit_code, report.message[:31]) == ("Terminated", ExitCode.DRAINED, "stopped by Prefect (Cancelling)")
    assert world.velma.journal.counts["done"] == streamed == report.counts()["done"] < 6
    assert await live_sessions(world) == []
    state = (await flow_run_of(world)).state
    assert (state.type, state.name) == ("CANCELLED", "Terminated")
    assert "the next run does exactly the rest (exit code 143)" in state.message


async def test_a_signal_drains_a_flow_run_and_prefect_says_so(prefect_server, world, make_wav):
    put_raw(world, make_wav, 6, 3.0)
    scan = asyncio.create_task(scan_in_prefect(world, pace=3.0))
    await seen(world, "first_audio", 2)
    os.kill(os.getpid(), signal.SIGTERM)
    report = await scan
    assert world.velma.journal.counts["done"] == world.velma.journal.counts["connect"] == report.counts()["done"] < 6
    state = (await flow_run_of(world)).state
    assert (state.type, state.name, report.exit_code) == ("CANCELLED", "Terminated", ExitCode.DRAINED)
    assert await live_sessions(world) == []


def errors(kind: type[SoundcheckError] = SoundcheckError) -> Iterator[SoundcheckError]:
    """One of every error that soundcheck can raise, whatever else it is made of."""
    says = f"something is wrong ({kind.__name__}): mend it"
    yield kind(says, phase=Phase.STREAMING) if issubclass(kind, SessionError) else kind.__new__(kind, says)
    for narrower in kind.__subclasses__():
        yield from errors(narrower)


def report_of(state: str, exit_code: ExitCode, message: str = "") -> Report:
    return Report("run", "s3://catalogue/", "results", state, exit_code, message, Progress())


def stopped_by(cause: StopCause) -> Report:
    """A run that a breaker, a signal, or a result store that is full has stopped."""
    watch = Watch()
    if cause is StopCause.TERMINATED:
        watch.terminate()
    elif cause is StopCause.RESULTS_NOT_WRITABLE:
        watch.stop.request(cause, Reason.NOT_REACHED, "no space left: make some, then run again")
    else:
        watch.stop.give_up(cause)
    return report_of(cause.value, cause.exit_code, watch.stop.message)


async def test_flow_runs_end_in_a_state_that_names_the_stop_and_says_what_to_do(prefect_server):
    """Through a real server, which has its own opinion about final states."""
    from prefect import get_client  # noqa: PLC0415
    from prefect.states import Running  # noqa: PLC0415
    from prefect.utilities.engine import propose_state  # noqa: PLC0415

    from flows.scan import scan_catalogue, state_of_error, state_of_report  # noqa: PLC0415

    ends = {
        "Completed": state_of_report(report_of("Completed", ExitCode.OK)),
        "CompletedWithQuarantine": state_of_report(report_of("Completed", ExitCode.QUARANTINED)),
        "Incomplete": state_of_report(report_of("Incomplete", ExitCode.EXHAUSTED, "2 objects stay pending: run again")),
        **{f"stop {cause}": state_of_report(stopped_by(cause)) for cause in StopCause},
        **{type(error).__name__: state_of_error(error) for error in errors()},
    }

    async with get_client() as client:
        seen = {}
        for what, state in ends.items():
            run = await client.create_flow_run(scan_catalogue, parameters={"source": "s3://catalogue/"}, state=Running())
            await propose_state(client, state, flow_run_id=run.id)
            stored = (await client.read_flow_run(run.id)).state
            seen[what] = (stored.type, stored.name)
            assert re.search(r"\(exit code \d+\)$", stored.message)
            if stored.type != "COMPLETED":
                assert re.search(r"run again|the next run|mend it|check|ask for|raise", stored.message), stored.message
    named = {
        AccessDeniedError: "AccessDenied",
        UnreachableError: "ServiceUnreachable",
        ResultsNotWritable: "ResultsNotWritable",
        SoundcheckError: "Configuration",
    }
    expected = {
        "Completed": ("COMPLETED", "Completed"),
        "CompletedWithQuarantine": ("COMPLETED", "CompletedWithQuarantine"),
        "Incomplete": ("FAILED", "Incomplete"),
        **{f"stop {cause}": ("FAILED", cause.value) for cause in StopCause},
        "stop Terminated": ("CANCELLED", "Terminated"),
        **{type(error).__name__: ("FAILED", next(name for kind, name in named.items() if isinstance(error, kind))) for error in errors()},
    }
    assert seen == expected


class TestMirror:
    async def test_a_steps_own_error_is_no_trouble_of_prefects(self, prefect_server, capsys):
        async with Mirror.open() as mirror:
            with pytest.raises(ConfigurationError, match="of its own"):
                await mirror.run_step("list", raises(ConfigurationError("of its own")))
            assert await mirror.run_step("plan", returns(3)) == 3
        assert capsys.readouterr().err == ""

    @pytest.mark.fault(60)
    async def test_a_step_never_waits_for_prefect_and_one_line_says_so(self, capsys, monkeypatch):
        monkeypatch.setattr("flows.mirror.PATIENCE_SECONDS", 1.0)
        monkeypatch.setattr(Mirror, "_show", never_shows)
        async with Mirror.open() as mirror, asyncio.timeout(30):
            assert [await mirror.run_step(f"stream music shard {number}", returns(number)) for number in range(50)] == list(range(50))
        assert capsys.readouterr().err.count("Prefect is not reachable") == 1

    async def test_a_step_that_is_cancelled_ends(self, monkeypatch):
        monkeypatch.setattr("flows.mirror.PATIENCE_SECONDS", 0.1)
        monkeypatch.setattr(Mirror, "_show", never_shows)
        ended, started = asyncio.Event(), asyncio.Event()

        async def step() -> None:
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with Mirror.open() as mirror:
            running = asyncio.create_task(mirror.run_step("list", step))
            await started.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert ended.is_set()

    async def test_what_cannot_be_told_is_left_and_said_once(self, capsys, caplog, monkeypatch):
        monkeypatch.setattr("flows.mirror.PATIENCE_SECONDS", 0.1)
        async with Mirror.open() as mirror:
            assert await mirror.tell(asyncio.Event().wait()) is None
            assert await mirror.tell(raises(OSError("connection refused"))()) is None
            assert await mirror.tell(returns(7)()) == 7
            assert await mirror.tell(raises(OSError("connection refused"))()) is None
        assert capsys.readouterr().err.count("Prefect is not reachable") == 1
        assert len(caplog.records) == 1


def raises(error: Exception) -> Callable[[], Awaitable[int]]:
    async def step() -> int:
        raise error

    return step


def returns(value: int) -> Callable[[], Awaitable[int]]:
    async def step() -> int:
        return value

    return step


async def never_shows(*_: object) -> None:
    """A Prefect that hangs."""
    await asyncio.Event().wait()


@pytest.mark.torture
async def test_a_run_that_prefect_cancels_under_a_runner_drains(prefect_server, world, make_wav):
    """The runner sends SIGTERM, and SIGKILL 30 s later."""
    from prefect import get_client  # noqa: PLC0415
    from prefect.states import Cancelling  # noqa: PLC0415

    put_raw(world, make_wav, 6, 4.0)
    settings = {
        "SOUNDCHECK_API_KEY": KEY,
        "SOUNDCHECK_VELMA_URL": world.velma.url,
        "SOUNDCHECK_RESULTS": str(world.results),
        "SOUNDCHECK_ENDPOINTS": '["music"]',
        "SOUNDCHECK_CONNECTIONS": "2",
        "SOUNDCHECK_PACE": "1",
    }
    async with get_client() as client:
        flow_id = await client.create_flow_from_name("scan-catalogue")
        deployment_id = await client.create_deployment(
            flow_id, "scan", entrypoint="flows.scan.scan_catalogue", path=str(ROOT), parameters={"source": "s3://catalogue/"}
        )
        run = await client.create_flow_run_from_deployment(deployment_id)
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)]
        runner = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | settings, cwd=ROOT
        )
        await seen(world, "connect", 3)
        await client.set_flow_run_state(run.id, Cancelling())
        await runner.wait()
        states = [(state.type, state.name) for state in await client.read_flow_run_states(run.id)]
    streamed = world.velma.journal.counts["connect"]
    assert world.velma.journal.counts["done"] == streamed < 6
    assert world.ask("SELECT state, exit_code, done, pending FROM runs_latest") == [("Terminated", 143, streamed, 6 - streamed)]
    assert await live_sessions(world) == []
    assert [name for _, name in states][-3:] == ["Cancelling", "Terminated", "Cancelled"]
