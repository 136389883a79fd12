import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.embedded_prefect import check_api, embedded_prefect
from moderation.errors import ConfigurationError, UnreachableError

pytestmark = pytest.mark.torture

ROOT = Path(__file__).parents[2]

CANARY = "canary-7c1f0e5b-never-at-rest"

SCAN = f"""
import asyncio, json, sys
from pathlib import Path
from flows.embedded_prefect import embedded_prefect

assert "prefect" not in sys.modules

async def main(state_dir, template_dir):
    async with embedded_prefect(state_dir, wait=False, template_dir=template_dir) as server:
        from prefect import flow, get_client, task
        from prefect.states import Failed
        from pydantic import SecretStr

        await server.ready()

        @task
        async def double(n):
            return 2 * n

        @flow
        async def completes(key: SecretStr):
            return await asyncio.gather(*(double(n) for n in range(3)))

        @flow
        async def raises():
            raise ValueError("on purpose")

        @flow
        async def is_refused():
            return Failed(name="AccessDenied", message="the key was refused")

        seen = {{"pid": server.process.pid, "api_url": server.api_url, "log_file": str(server.log_file)}}
        completed = await completes(SecretStr({CANARY!r}), return_state=True)
        seen["completes"] = [completed.name, completed.type, await completed.result()]
        try:
            await raises()
        except ValueError as error:
            seen["raises"] = str(error)
        refused = await is_refused(return_state=True)
        seen["is_refused"] = [refused.name, refused.type, refused.message]
        async with get_client() as client:
            seen["recorded"] = sorted(run.state_name for run in await client.read_flow_runs())
    return seen

print(json.dumps(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))))
"""

WAIT_TO_BE_KILLED = """
import asyncio, sys
from pathlib import Path
from flows.embedded_prefect import embedded_prefect

async def main(state_dir, stage):
    async with embedded_prefect(state_dir, wait=stage == "serving") as server:
        print(server.api_url, flush=True)
        await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def environment():
    """As a user's shell: without this test run's Prefect settings, and with one that would lead elsewhere."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return clean | {"PYTHONPATH": str(ROOT), "PREFECT_SERVER_API_BASE_PATH": "/elsewhere"}


def answers(api_url):
    address = urlsplit(api_url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=1).close()
    except OSError:
        return False
    return True


def assert_ends(api_url):
    deadline = time.monotonic() + 20
    while answers(api_url):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("state $HOME"), tmp_path_factory.mktemp("templates")


@pytest.fixture(scope="module")
def scan(folders):
    done = subprocess.run([sys.executable, "-c", SCAN, *folders], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.prefect
class TestScan:
    def test_a_flow_of_three_tasks_completes(self, scan):
        assert json.loads(scan.stdout)["completes"] == ["Completed", "COMPLETED", [0, 2, 4]]

    def test_an_exception_reaches_the_caller(self, scan):
        assert json.loads(scan.stdout)["raises"] == "on purpose"

    def test_a_final_state_can_have_a_name_of_ours(self, scan):
        seen = json.loads(scan.stdout)
        assert seen["is_refused"] == ["AccessDenied", "FAILED", "the key was refused"]
        assert seen["recorded"] == ["AccessDenied", "Completed", "Failed"]

    def test_the_terminal_stays_clean(self, scan):
        assert scan.stderr == ""
        assert len(scan.stdout.splitlines()) == 1

    def test_what_prefect_says_is_in_the_log_file(self, scan):
        assert "on purpose" in Path(json.loads(scan.stdout)["log_file"]).read_text()

    def test_the_server_has_ended(self, scan):
        assert not answers(json.loads(scan.stdout)["api_url"])

    def test_everything_of_prefect_is_under_the_state_directory(self, scan, folders):
        assert [path.name for path in folders[0].iterdir()] == ["prefect"]
        assert list(folders[0].glob("prefect/server-*.db"))

    def test_a_secret_parameter_is_not_at_rest(self, scan, folders):
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        assert any(b"on purpose" in path.read_bytes() for path in files), "the search itself finds nothing"
        assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.prefect
@pytest.mark.parametrize("stage", ["starting", "serving"])
def test_a_killed_parent_leaves_no_orphan(scan, folders, stage):
    """Also the second start on a state directory."""
    command = [sys.executable, "-c", WAIT_TO_BE_KILLED, folders[0], stage]
    with subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        api_url = parent.stdout.readline().strip()
        assert answers(api_url)
        parent.kill()
        assert parent.stderr.read() == ""
    assert_ends(api_url)


@pytest.mark.prefect
# Prefect 3.8.8 does not close the client with which it asks the server for its default result storage
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.torture
async def test_it_starts_from_a_template_where_prefect_is_imported_already(scan, folders, tmp_path):
    from prefect import flow, get_client  # noqa: PLC0415  # 3 s, only where the test runs
    from prefect.settings import get_current_settings  # noqa: PLC0415

    @flow
    async def greets():
        return "hello"

    before = dict(os.environ)
    async with embedded_prefect(tmp_path, template_dir=folders[1]) as server:
        check_api(server.api_url)
        assert get_current_settings().api.url == server.api_url
        assert await greets() == "hello"
        async with get_client() as client:
            assert [run.state_name for run in await client.read_flow_runs()] == ["Completed"]
    assert dict(os.environ) == before
    assert get_current_settings().api.url != server.api_url
    with pytest.raises(UnreachableError):
        check_api(server.api_url)


@pytest.mark.prefect
async def test_a_server_that_cannot_start_is_one_clear_error(tmp_path):
    async with embedded_prefect(tmp_path, wait=False) as server:
        server.process.kill()
        with pytest.raises(UnreachableError, match=r"did not start .*see .*prefect\.log"):
            await server.ready()


async def test_a_state_directory_that_is_a_file(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(ConfigurationError, match="name another"):
        async with embedded_prefect(tmp_path / "state"):
            pass


def test_importing_it_imports_no_prefect():
    code = "import sys, flows.embedded_prefect; sys.exit('prefect' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, check=False).returncode == 0


class TestCheckApi:
    @pytest.mark.fault(58)
    def test_nobody_listens(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(UnreachableError) as caught:
            check_api(f"http://user:{CANARY}@127.0.0.1:{port}/api")
        assert str(caught.value) == (
            f"Prefect at http://127.0.0.1:{port}/api did not answer (ConnectError): "
            "start that server, or unset PREFECT_API_URL to use the embedded one"
        )

    @pytest.mark.parametrize("url", ["not a url", "http://", "ftp://127.0.0.1/api", "http://[::1/api", "http://127.0.0.1:99999/api"])
    def test_it_is_no_url(self, url):
        with pytest.raises(UnreachableError, match="PREFECT_API_URL"):
            check_api(url)

    @pytest.mark.fault(58)
    @pytest.mark.parametrize("status", [404, 500])
    def test_something_else_answers(self, status):
        class Other(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Other) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with pytest.raises(UnreachableError, match=f"HTTP {status}"):
                check_api(f"http://127.0.0.1:{server.server_port}/api/")
            thread.join()
