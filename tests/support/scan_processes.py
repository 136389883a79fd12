"""Scans as processes of their own, made quickly: one process imports everything once, and forks each scan.

`python -m scan_processes` is that process. It reads orders, a JSON line each, and says the process id of each scan.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from connectors.audio_store import AudioStores
from flows.launch import scan_directly
from flows.request import FlowName, Request
from flows.settings import load_settings
from flows.watch import Watch
from moderation.catalogue import AudioObject
from moderation.errors import SoundcheckError

SUPPORT = Path(__file__).parent
POLL_S = 0.05


@dataclass(frozen=True)
class ScanProcess:
    """A running scan."""

    pid: int
    report: Path

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    async def ended(self) -> dict[str, Any]:
        """Its report, once it has ended; without figures where it was killed or failed."""
        while self.runs:
            await asyncio.sleep(POLL_S)
        return json.loads(self.report.read_text()) if self.report.exists() else {}

    async def kill(self) -> None:
        """kill -9, where it has not just ended, and wait until it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self.ended()


@dataclass
class ScanProcesses:
    """What starts scans. folder gets their reports and what they print."""

    process: asyncio.subprocess.Process
    folder: Path
    number: int = 0

    @classmethod
    @asynccontextmanager
    async def ready(cls, folder: Path) -> AsyncIterator[Self]:
        """One that has imported everything, for this folder, which exists. Scans that still run at the end are killed."""
        path = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
        with (folder / "output").open("wb") as output:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "scan_processes"),
                stdin=pipe,
                stdout=pipe,
                stderr=output,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )
        try:
            yield cls(process, folder)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def scan(self, source: str, settings: dict[str, Any], flow: FlowName = FlowName.SCAN, deadly: str = "") -> ScanProcess:
        """A scan, or a run of another kind, with these settings, which has begun. It aborts when it streams the deadly key."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.number += 1
        report = self.folder / f"report-{self.number}"
        order = {"source": source, "settings": settings, "report": str(report), "flow": flow.value, "deadly": deadly}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return ScanProcess(int(await self.process.stdout.readline()), report)


def main() -> None:
    """Fork a scan for every order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(_scan(**json.loads(line)))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _scan(source: str, settings: dict[str, Any], report: str, flow: str, deadly: str) -> int:
    stream = AudioStores.stream

    def deadly_stream(self: AudioStores, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        if item.key == deadly:
            os.abort()
        return stream(self, item, offset)

    AudioStores.stream = deadly_stream  # type: ignore[method-assign]
    try:
        request = Request((source,), flow=FlowName(flow))
        ended = asyncio.run(scan_directly(load_settings(**settings), request, Watch())).counts()
    except SoundcheckError as error:
        ended = {"exit_code": error.exit_code, "message": str(error)}
    Path(report).with_suffix(".new").write_text(json.dumps(ended))
    Path(report).with_suffix(".new").rename(report)
    return 0


if __name__ == "__main__":
    main()
