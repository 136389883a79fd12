"""The local Velma server as a command: listens on loopback until it is told to end."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from connectors.local_velma.fault_script import EVERY, FaultScript, Scene
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import ConnectionLimit, Organisation
from connectors.local_velma.server import LocalVelma, local_velma, notice
from connectors.local_velma.switches import HEAD_BYTES, NO_SWITCHES, Rule, Script, Switches, Verdict, digest_of
from flows.console import say_json, stdout
from flows.serve_options import ServeOptions
from flows.stopping import SIGNALS
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError


async def serve(options: ServeOptions, *, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigurationError for options that mean nothing, and a port or file that cannot be had."""
    organisation = Organisation(
        api_keys=options.api_key,
        max_connections=connection_limit(options.max_connections),
        total_connections=options.total_connections,
        monthly_hours=options.monthly_hours,
        credit_hours=options.credits,
    )
    switches, faults = switches_of(options), FaultScript(scene_of(options))
    ended = asyncio.Event()
    for name in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    with _journal(options.journal) as journal:
        try:
            async with local_velma(
                organisation,
                port=options.port,
                journal=journal,
                detector=options.detector,
                switches=switches,
                faults=faults,
                admin_token=options.admin_token,
            ) as server:
                _say_where(server, notice(switches), as_json=as_json)
                await ended.wait()
        except OSError as error:
            raise ConfigurationError(f"cannot listen on port {options.port}: {error.strerror}") from error


def connection_limit(said: Iterable[str]) -> ConnectionLimit:
    """The limit that words such as "5" and "music=2" give. Raises ConfigurationError."""
    limits: dict[str, int | None] = {}
    for word in said:
        name, _, number = word.rpartition("=")
        if not (number.isascii() and number.isdigit()) or name not in {"", *ENDPOINTS}:
            raise ConfigurationError(f"--max-connections takes a number, or one of {', '.join(ENDPOINTS)} = a number, not {word!r}")
        limits[name] = int(number)
    rest = limits.pop("", None)
    return dict.fromkeys(ENDPOINTS, rest) | limits if limits else rest


def switches_of(options: ServeOptions) -> Switches:
    """The switches that the options set. Raises ConfigurationError."""
    plain = {name: getattr(options, name) for name in Switches.__struct_fields__ if name != "script"}
    scripted = options.scripted or bool(options.verdict)
    script = Script(_rules(options.verdict), _digests(options)) if scripted else None
    try:
        return NO_SWITCHES.changed(plain | {"script": script})
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"a switch cannot be set so: {error}") from error


def scene_of(options: ServeOptions) -> Scene:
    """The faults that the options ask for. Raises ConfigurationError."""
    mix = {}
    for word in options.fault_mix:
        chance, _, specs = word.partition(":")
        try:
            mix[specs] = float(chance)
        except ValueError:
            raise ConfigurationError(f"--fault-mix takes PROBABILITY:FAULT, as in 0.05:close=1011, not {word!r}") from None
    standing = {EVERY: "+".join(options.fault)} if options.fault else {}
    return Scene(standing=standing, mix=mix, seed=options.fault_seed)


def _rules(said: Iterable[str]) -> tuple[Rule, ...]:
    known = {verdict.value for verdict in Verdict}
    pairs = [word.rpartition("=")[::2] for word in said]
    for pattern, verdict in pairs:
        if not pattern or verdict not in known:
            raise ConfigurationError(f"--verdict takes PATTERN=VERDICT with one of {', '.join(sorted(known))}, not {pattern}={verdict}")
    return tuple(Rule(pattern, Verdict(verdict)) for pattern, verdict in pairs)


def _digests(options: ServeOptions) -> dict[str, str]:
    """The digests of the catalogue's files, by their paths in it."""
    if options.catalogue is None:
        if options.verdict:
            raise ConfigurationError("--verdict needs --catalogue, the folder with the files that it is about")
        return {}
    try:
        files = [path for path in sorted(options.catalogue.rglob("*")) if path.is_file()]
        return {path.relative_to(options.catalogue).as_posix(): digest_of(_head(path)) for path in files}
    except OSError as error:
        raise ConfigurationError(f"the catalogue {options.catalogue} cannot be read: {error.strerror}") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _journal(path: Path | None) -> Journal:
    try:
        return Journal(path)
    except OSError as error:
        raise ConfigurationError(f"the journal {path} cannot be written: {error.strerror}") from error


def _say_where(server: LocalVelma, whose: str, *, as_json: bool) -> None:
    if as_json:
        where = {"url": server.url, "admin_url": server.admin_url, "admin_token": server.admin_token}
        say_json({**where, "pid": os.getpid(), "notice": whose})
    else:
        api = f"admin API on {server.admin_url} with the token {server.admin_token}"
        stdout.print(f"{whose}\nlistening on {server.url} (Ctrl-C ends it)\n{api}", highlight=False, soft_wrap=True, markup=False)
