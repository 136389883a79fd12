"""Several processes on one ledger, one of them killed."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from connectors.ledger import LEASE_MS, Ledger, host_boot_ms
from ledger_facts import MONTH, Clock, admit, change, claim_of, execute, money, set_gate, spooled
from moderation.admission import Denial, Refusal, SessionState

_PROCESS = """
import asyncio, sys
from connectors.ledger import Ledger
from moderation.admission import Claim, Denial, Grant, Refusal

path, me, wanted, hold = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "hold"

def claim_of(number):
    return Claim(session_id=f"{me}-{number:03}", lake="lake", org="acme", endpoint="music", object_id=f"{me}-{number}", object_key_id="key",
                 params_hash="params", run_id="run", shard=0, worker=me, attempt=1, month="2026-11", estimate_ms=1000)

async def main():
    async with Ledger.open(path) as ledger:
        held = []
        for number in range(wanted):
            while not isinstance(answer := await ledger.admit(claim_of(number)), Grant):
                assert isinstance(answer, Refusal) and answer.denial is Denial.FULL, answer
                if held:
                    await ledger.finish(held.pop(0), 900)
            held.append(claim_of(number).session_id)
        if hold:
            print("holding", flush=True)
            sys.stdin.read()
        for session_id in held:
            await ledger.finish(session_id, 900)

asyncio.run(main())
"""


def process(path, name, wanted, hold="go"):
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(path), name, str(wanted), hold],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_admitting_at_once_never_exceed_the_ceiling(path):
    async with Ledger.open(path) as ledger:
        await set_gate(ledger, "acme", "music", 3)
        # an independent witness, inside the database: how many stream right after each admission
        await change(ledger, "CREATE TABLE witness (process TEXT, streaming INTEGER)")
        await change(
            ledger,
            "CREATE TRIGGER witnessed AFTER INSERT ON sessions BEGIN INSERT INTO witness "
            "SELECT NEW.worker, count(*) FROM sessions WHERE state = 'streaming'; END",
        )
        workers = [process(path, name, 60) for name in ("one", "two")]
        results = await asyncio.gather(*(asyncio.to_thread(worker.communicate) for worker in workers))
        assert [worker.returncode for worker in workers] == [0, 0], results
        seen = await execute(ledger, "SELECT process, streaming FROM witness")
        assert Counter(name for name, _ in seen) == {"one": 60, "two": 60}
        assert max(streaming for _, streaming in seen) == 3
        assert await money(ledger) == (0, 120 * 900, 0)


@pytest.mark.fault(63)
async def test_a_killed_holder_is_swept_and_its_objects_stream_again(path):
    slept = Clock(0)
    async with Ledger.open(path, clock_ms=lambda: host_boot_ms() + slept.ms) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        holder = process(path, "holder", 2, "hold")
        assert await asyncio.to_thread(holder.stdout.readline) == "holding\n"
        holder.kill()
        await asyncio.to_thread(holder.communicate)
        assert await ledger.admit(claim_of(1)) == Refusal(Denial.FULL, live=2)
        assert await ledger.expired() == ()
        slept.ms = LEASE_MS
        assert await ledger.expired() == ("holder-000", "holder-001")
        result = spooled(claim_of(1, session_id="holder-000"), done=True, booked_ms=900)
        assert await ledger.recover("holder-000", result) is SessionState.FINISHED
        assert await ledger.recover("holder-001", None) is SessionState.AT_RISK
        assert await money(ledger) == (0, 900, 1000)
        assert await ledger.admit(claim_of(1, object_id="holder-0")) == Refusal(Denial.DONE)
        await admit(ledger, 2, object_id="holder-1")


@pytest.mark.fault(63)
async def test_a_worker_killed_amid_its_transactions_leaves_exact_counters(path):
    async with Ledger.open(path) as ledger:
        await set_gate(ledger, "acme", "music", 3)
        worker = process(path, "worker", 100_000)
        while (await ledger.usage("acme", MONTH))[0].settled_ms < 20 * 900:
            assert worker.poll() is None
        worker.kill()
        await asyncio.to_thread(worker.communicate)
        sums = await execute(
            ledger,
            "SELECT sum(reserved_ms) FILTER (WHERE state = 'streaming'), sum(booked_ms) FILTER (WHERE state = 'finished') FROM sessions",
        )
        reserved, settled, at_risk = await money(ledger)
        assert [(reserved or None, settled)] == sums
        assert at_risk == 0
        assert await execute(ledger, "PRAGMA integrity_check") == [("ok",)]
