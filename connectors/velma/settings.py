"""How the service is reached: hosts, proxy, deadlines, pace; and which URLs the key may travel over."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy

from moderation.errors import ConfigurationError
from moderation.pacing import Deadlines, Pace

CHUNK_BYTES = 64 * 1024
"""Bytes of one binary message: 4 KiB ones cost 25 % more CPU, larger ones gain nothing (measurements.md)."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class VelmaSettings:
    """How to reach the service. hosts maps an endpoint's name to its `wss://host[:port]`; others use the host of their seed page.

    proxy is an `http://` or `https://` URL; what the environment says of proxies is not heard. transcripts is a folder where every
    session leaves its transcript (moderation.transcript), for finding out why one failed; None leaves none. window_ms and window_bytes
    bound the audio in flight; listen_s is how long a cautious session waits for a refusal after its first message. Raises
    ConfigurationError for a URL over which the key could be read, or which is none.
    """

    hosts: Mapping[str, str] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    pace: Pace = field(default_factory=Pace)
    chunk_bytes: int = CHUNK_BYTES
    window_ms: int = 60_000
    window_bytes: int = 4 * 1024 * 1024
    proxy: str | None = field(default=None, repr=False)
    transcripts: Path | None = None
    listen_s: float = 2.0

    def __post_init__(self) -> None:
        for host in self.hosts.values():
            check_host(host)
        if self.proxy is not None:
            check_proxy(self.proxy)


def check_host(host: str) -> None:
    """Refuse a service URL over which the key could be read on the way, or which carries more than a host. Raises ConfigurationError."""
    try:
        parts = urlsplit(host)
        has_address = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_address = False
    if not has_address:
        raise ConfigurationError(f"{_shown(host)} is no service URL: give wss://host, or ws://127.0.0.1:PORT for a local one")
    if parts.scheme == "ws" and parts.hostname not in _LOOPBACK:
        raise ConfigurationError(f"ws://{parts.hostname} would send the API key in plain text: use wss:// (ws:// is for loopback alone)")
    if "@" in parts.netloc or "?" in host or "#" in host or parts.path not in {"", "/"}:
        raise ConfigurationError(f"{_shown(host)} must be scheme, host and port alone: the path and the key are added by soundcheck")


def check_proxy(proxy: str) -> None:
    """Refuse a proxy URL that is none, or one of a kind that needs more packages. Raises ConfigurationError without its password."""
    try:
        known = parse_proxy(proxy).scheme in {"http", "https"}
    except (InvalidProxy, ValueError):
        known = False
    if not known:
        raise ConfigurationError(
            f"{_shown(proxy)} is no proxy URL: give http://host:port or https://host:port, user:password@ before the host"
        )


def _shown(url: str) -> str:
    """A URL without what may be secret in it: user and password, path and query."""
    scheme, found, rest = url.partition("://")
    address = re.split(r"[/?#]", rest if found else url)[0].rpartition("@")[2]
    return repr(f"{scheme}{found}{address}" if found else address)
