"""A process that publishes what a ledger and a spool have of a run: `python publishing_process.py LEDGER SPOOL RESULTS RUN_ID`.

It prints a line of JSON: the sessions published, and its memory in MiB before and at its most.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

from connectors.lake.store import open_store
from connectors.ledger import Ledger
from connectors.spool import Spool
from tasks.publish import Publisher, run_date

STATUS, PEAK = Path("/proc/self/status"), re.compile(r"VmHWM:\s+(\d+) kB")
KIB = 1024


def _peak_mib() -> float:
    return int(PEAK.findall(STATUS.read_text())[0]) / KIB


async def _publish(ledger_file: Path, spool: Path, results: str, run_id: str) -> None:
    async with Ledger.open(ledger_file) as ledger:
        before = _peak_mib()
        sessions = await Publisher(ledger, Spool(spool), open_store(results), "lake").publish_run(run_id, run_date(run_id))
        sys.stdout.write(json.dumps({"sessions": sessions, "before_mib": before, "peak_mib": _peak_mib()}))


if __name__ == "__main__":
    asyncio.run(_publish(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
