"""The server under a ledger in PostgreSQL: what goes wrong with it, and what is said about it."""

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from connectors.ledger import Ledger, postgresql
from ledger_facts import admit, claim_of, set_gate
from moderation.errors import UnreachableError

COMMAND_SECONDS = 0.5
PATIENCE_S = 20


@pytest.fixture
async def ledger(request, monkeypatch):
    monkeypatch.setattr(postgresql, "COMMAND_SECONDS", COMMAND_SECONDS)
    async with Ledger.open(request.getfixturevalue("postgresql").url()) as opened:
        await set_gate(opened, "acme", "music", 5)
        yield opened


@contextmanager
def silenced():
    """Stops backends of the server, which keep their connections open and say nothing more, until the block ends."""
    stopped: list[int] = []

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)

    try:
        yield stop
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def backend(connection) -> int:
    return await connection.scalar(text("SELECT pg_backend_pid()"))


async def ended(task):
    """What a task comes to, which not even cancelling it need end."""
    await asyncio.wait({task}, timeout=PATIENCE_S)
    assert task.done()
    return await task


async def test_a_connection_that_falls_silent_is_given_up_and_the_next_one_works(ledger):
    with silenced() as silence:
        silence(await ledger._database.transact(backend))
        with pytest.raises(UnreachableError, match="does not answer"):
            await ended(asyncio.create_task(ledger.admit(claim_of(1))))
        await admit(ledger, 2)


@pytest.mark.parametrize("url", ["u:canary@127.0.0.1:1/db", "127.0.0.1:1/db?user=u&password=canary&ssl=disable"])
async def test_no_message_has_the_password_wherever_the_url_has_it(url):
    with pytest.raises(UnreachableError) as failed:
        async with Ledger.open(f"postgresql://{url}"):
            pass
    assert "127.0.0.1:1/db" in str(failed.value)
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize("cancelled", [False, True], ids=["waiting", "cancelled"])
async def test_a_transaction_that_falls_silent_ends(ledger, cancelled):
    begun = asyncio.Event()

    async def step(connection) -> None:
        silence(await backend(connection))
        begun.set()
        await connection.scalar(text("SELECT 1"))

    with silenced() as silence:
        task = asyncio.create_task(ledger._database.transact(step))
        await begun.wait()
        if cancelled:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else UnreachableError):
            await ended(task)
    await admit(ledger, 1)
