"""Checks of an installation and its settings, each a line: what was looked at, whether it is well, and what to do if not."""

import asyncio
import importlib.util
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from connectors.lake.store import open_store
from connectors.s3 import S3Settings, S3Uri, explain, s3_client
from connectors.velma import check_host
from flows.console import stdout
from flows.embedded_prefect import check_api
from flows.keys import load_key
from flows.places import results_of, state_of
from flows.run_settings import check_source, organisation_of
from flows.settings import Settings
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError, SoundcheckError, UnreachableError
from moderation.outcomes import ExitCode

CONNECT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its subject, whether it is well, what was found, and the exit code it stands for."""

    subject: str
    well: bool
    detail: str
    exit_code: ExitCode = ExitCode.OK


async def examine(settings: Settings, source: str | None) -> list[Finding]:
    """Every check, in the order in which a scan would fail. Nothing is streamed, and the key is not sent.

    Where it is not clear which organisation's key and roots to look at, that is all that is found.
    """
    everybody = settings
    try:
        settings = organisation_of(everybody)
    except SoundcheckError as error:
        return [_not_well("organisation", error)]
    sources: list[str | None] = [source] if source else [*settings.roots] or [None]
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("API key", lambda: _key(settings)),
        *((f"endpoint {name}", lambda name=name: _endpoint(settings, name)) for name in settings.endpoints),
        *((f"catalogue {place or ''}".strip(), lambda place=place: _catalogue(everybody, place)) for place in sources),
        ("results", lambda: _results(settings)),
        ("state folder", lambda: _state(settings)),
        ("websockets C speedups", _speedups),
        ("Prefect", _prefect),
    ]
    return [await _check(subject, check) for subject, check in checks]


async def _check(subject: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject, well=True, detail=await check())
    except SoundcheckError as error:
        return _not_well(subject, error)


def _not_well(subject: str, error: SoundcheckError) -> Finding:
    return Finding(subject, well=False, detail=str(error), exit_code=error.exit_code)


async def _key(settings: Settings) -> str:
    await load_key(settings)
    return "there is one (it is not shown, and was not sent)"


async def _endpoint(settings: Settings, name: str) -> str:
    """Open and close a connection, with TLS where the URL says so."""
    host = settings.hosts.get(name) or settings.velma_url or ENDPOINTS[name].default_host
    check_host(host)
    parts = urlsplit(host)
    secure = parts.scheme == "wss"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None)
        writer.close()
    except OSError as error:
        raise UnreachableError(
            f"{host} cannot be reached ({error.strerror or type(error).__name__}): check network, proxy and host"
        ) from error
    return f"{host} answers"


async def _catalogue(settings: Settings, source: str | None) -> str:
    """List the first object of a source, which must be the organisation's own."""
    if source is None:
        return "not asked: give s3://bucket/prefix"
    uri = S3Uri.parse(source)
    check_source(settings, uri)
    client = s3_client(S3Settings())
    failure: Exception
    try:
        page = await asyncio.to_thread(client.list_objects_v2, Bucket=uri.bucket, Prefix=uri.prefix, MaxKeys=1)
    except Exception as error:  # noqa: BLE001 - every failure of this one call is the finding
        failure = explain(error, f"listing {uri}")
    else:
        if page.get("KeyCount"):
            return f"{uri} can be listed"
        failure = ConfigurationError(f"there is nothing below {uri}")
    raise failure


async def _results(settings: Settings) -> str:
    store = open_store(results_of(settings), s3_client(S3Settings()))
    await asyncio.to_thread(store.check_writable)
    return f"{store.url} takes what is written"


async def _state(settings: Settings) -> str:
    return str(state_of(settings))


async def _speedups() -> str:
    if importlib.util.find_spec("websockets.speedups") is None:
        raise ConfigurationError("missing: masking is 52 times slower without them; install websockets from a wheel")
    return "present"


async def _prefect() -> str:
    if api_url := os.environ.get("PREFECT_API_URL"):
        await asyncio.to_thread(check_api, api_url)
        return f"{version('prefect')}, {api_url} answers"
    return f"{version('prefect')}, an embedded server is started for each scan"


def worst(findings: list[Finding]) -> ExitCode:
    """The exit code of the first check that is not well."""
    return next((finding.exit_code for finding in findings if not finding.well), ExitCode.OK)


def print_findings(findings: list[Finding]) -> None:
    """The checks as a table."""
    table = Table()
    for name in ("check", "", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(finding.subject, Text("ok", "green") if finding.well else Text("no", "red"), Text(finding.detail))
    stdout.print(table)
