"""The composition root: where the key comes from, where state lies, and what memory is handed back."""

import gc
import os
import subprocess
import sys

import pytest

from connectors.lake.store import open_store
from flows import wiring
from flows.embedded_prefect import embedded_prefect
from flows.keys import load_key
from flows.places import open_spool, state_of
from flows.request import Request
from flows.settings import fixed_settings
from flows.wiring import velma_client, wired, wired_to_plan
from moderation.endpoints import ENDPOINTS
from moderation.errors import AccessDeniedError, ConfigurationError
from prefect_homes import migrated_home

KEY = "canary-5f0e9d1c7b"
ALLOCATORS = ("ARROW_DEFAULT_MEMORY_POOL", "_RJEM_MALLOC_CONF")
LOADED = f"""
import os, sys

class Told:
    def find_spec(self, name, path=None, target=None):
        if name in {{"polars", "pyarrow"}}:
            print(f"{{name}}: {{'told' if {{*{ALLOCATORS}}} <= {{*os.environ}} else 'not told'}}")

sys.meta_path.insert(0, Told())
import flows.cli, polars, pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


async def test_the_key_is_read_from_a_file(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    key = await load_key(fixed_settings(api_key_file=tmp_path / "key"))
    assert key.reveal() == KEY
    assert KEY not in repr(key)


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe"])
async def test_a_file_without_a_key_is_refused_without_showing_it(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigurationError):
        await load_key(fixed_settings(api_key_file=tmp_path / "key"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await load_key(fixed_settings(api_key_file=tmp_path / "absent"))


async def test_no_key_says_where_one_may_be():
    with pytest.raises(AccessDeniedError, match="SOUNDCHECK_API_KEY"):
        await load_key(fixed_settings())


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.torture
async def test_the_key_is_read_from_a_prefect_secret_block(tmp_path):
    migrated_home(tmp_path)
    async with embedded_prefect(tmp_path):
        from prefect.blocks.system import Secret  # noqa: PLC0415 - only now does Prefect know its server

        await Secret(value=KEY).asave("velma-key")
        assert (await load_key(fixed_settings(api_key_block="velma-key"))).reveal() == KEY
        with pytest.raises(ConfigurationError, match="no Secret block named 'other'"):
            await load_key(fixed_settings(api_key_block="other"))


async def test_one_host_serves_every_endpoint_unless_it_has_its_own():
    settings = fixed_settings(api_key=KEY, velma_url="ws://127.0.0.1:9", hosts={"ai_music": "wss://elsewhere.example"})
    client = velma_client(settings, await load_key(settings))
    assert [client.host(endpoint) for endpoint in ENDPOINTS.values()] == ["ws://127.0.0.1:9", "wss://elsewhere.example"]
    plain = velma_client(fixed_settings(api_key=KEY), await load_key(settings))
    assert plain.host(ENDPOINTS["ai_music"]) == "wss://platform.modulate.ai"


def test_state_lies_in_a_results_folder_or_with_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_of(fixed_settings(results=str(tmp_path / "out"))) == tmp_path / "out" / "_state"
    assert state_of(fixed_settings(results="s3://bucket/out")) == tmp_path / "state" / "soundcheck"
    assert state_of(fixed_settings(results="s3://bucket/out", state_dir=tmp_path / "own")) == tmp_path / "own"
    assert (tmp_path / "own").is_dir()


def test_the_spool_is_this_hosts_or_with_a_ledger_for_several_that_of_the_results(tmp_path):
    store = open_store(str(tmp_path / "results"))

    def place(**settings):
        return str(open_spool(fixed_settings(results=store.url, **settings), store))

    own, shared = str(tmp_path / "results" / "_state" / "spool"), str(tmp_path / "results" / "v1" / "_spool")
    assert place() == own
    assert place(spool="results") == shared
    assert place(ledger_url="postgresql://user@host/database") == shared
    assert place(ledger_url="postgresql://user@host/database", spool="state") == own


def test_what_a_stage_has_freed_is_the_systems_again():
    """Arrow's and polars' allocators would keep it, and the next stage add to it: they must be told before they are loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATORS}
    said = subprocess.run([sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=True)
    assert {*said.stdout.splitlines()} == {"polars: told", "pyarrow: told", "system"}


@pytest.mark.parametrize("opened", [wired, wired_to_plan])
async def test_a_run_and_a_plan_ask_their_lake_with_one_thread(world, opened):
    async with opened(world.settings, Request(("s3://catalogue/",))) as parts:
        with parts.open_lake() as lake:
            assert lake.execute("SELECT current_setting('threads')").fetchall() == [(1,)]


async def test_what_is_imported_is_no_work_for_the_collection_of_garbage(world):
    wiring._spare_what_is_imported.cache_clear()
    gc.unfreeze()
    request = Request(("s3://catalogue/",))
    async with wired(world.settings, request):
        spared = gc.get_freeze_count()
    assert spared > len(gc.get_objects(generation=0))
    async with wired(world.settings, request):
        assert gc.get_freeze_count() <= spared, "what a run has made is not imported"
