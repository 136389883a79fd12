"""`soundcheck sql` on a terminal of its own: a conversation, and Ctrl-C in it."""

import os
import pty
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from connectors.lake.packages import write_rows
from connectors.lake.store import FolderStore

ROOT = Path(__file__).parents[2]
WITH_ITS_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from flows.cli import main; main()"
CTRL_C = b"\x03"
LONG = {
    "sort": "select max(h) from (select hash(i) as h from range(400000000) as a(i) order by h limit 200000000 offset 50000000)",
    "join": "select count(*) from range(100000000) as a(i), range(100000) as b(j) where (i * j) % 7 = 3",
    "recursion": "with recursive t(n) as (select 1 union all select n + 1 from t where n < 1000000000) select max(n) from t",
    "rows": "select i from range(1000000000000) as a(i) where hash(i) = 1",
}
"""Queries that take minutes; DuckDB looks for signals in joins, and not in the sort or the recursion."""


@pytest.fixture
def terminal(tmp_path):
    """A conversation on a terminal of its own: the process, our end, and what waits until something is heard."""
    store = FolderStore(tmp_path / "results")
    write_rows(store, "runs", "r1", date(2026, 3, 1), "start", [])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", WITH_ITS_TERMINAL, "sql", "--results", store.url, "--csv"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "dumb"}, start_new_session=True
    )
    os.close(theirs)
    heard = b""

    def until(what: bytes) -> None:
        nonlocal heard
        while what not in heard:
            heard += os.read(ours, 4096)
        heard = heard.partition(what)[2]

    yield process, ours, until
    process.kill()
    process.wait()
    os.close(ours)


@pytest.mark.torture
def test_on_a_terminal_it_is_a_conversation(terminal):
    process, ours, until = terminal
    until(b"soundcheck> ")
    os.write(ours, b"select 6 *\n")
    until(b"...> ")
    os.write(ours, b"7 as answer;\n")
    until(b"answer\r\n42\r\n")
    os.write(ours, b"selct;\n")
    until(b"syntax error")
    os.write(ours, b".quit\n")
    assert process.wait(60) == 0


@pytest.mark.parametrize("query", [pytest.param(LONG[name], id=name, marks=[] if name == "sort" else pytest.mark.torture) for name in LONG])
def test_ctrl_c_ends_a_query_at_once_and_not_the_conversation(terminal, query):
    process, ours, until = terminal
    until(b"soundcheck> ")
    idle = cpu_seconds(process.pid)
    os.write(ours, query.encode() + b";\n")
    while cpu_seconds(process.pid) < idle + 0.3:
        time.sleep(0.05)
    before = cpu_seconds(process.pid)
    os.write(ours, CTRL_C)
    until(b"soundcheck> ")
    assert cpu_seconds(process.pid) < before + 5, "it was computed to its end"
    os.write(ours, b"select 6 * 7 as answer;\n")
    until(b"answer\r\n42\r\n")
    os.write(ours, b".quit\n")
    assert process.wait(60) == 0


def cpu_seconds(pid: int) -> float:
    """What a process has used so far: a query that runs uses some."""
    user_ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    return user_ticks / os.sysconf("SC_CLK_TCK")
