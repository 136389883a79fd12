"""The options of `soundcheck serve`, apart from what it runs: the command line reads them without loading a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from connectors.local_velma.detectors import DetectorName
from connectors.local_velma.faults import faults_help
from flows.flags import Flag, Several


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the local server is to be: its organisation, its detector, its switches. Hours are audio-hours; None is no limit."""

    api_key: Annotated[tuple[str, ...], Several]
    """A key that is accepted; may be given several times."""
    port: int = 8765
    """0 takes any free one."""
    admin_token: str | None = None
    """The token of the admin API; without one a random token is made, and said when it listens."""
    max_connections: Annotated[tuple[str, ...], Several] = ()
    """The most connections at once on each endpoint; or on one by its name, as in music=5. May be given several times."""
    total_connections: int | None = None
    """The most connections at once over all endpoints."""
    monthly_hours: float | None = None
    """Audio-hours until "Monthly usage limit reached" is the answer."""
    credits: float | None = None
    """Audio-hours until "Insufficient credits" is the answer."""
    journal: Path | None = None
    """A file that gets a JSON line for everything the server sees."""
    detector: DetectorName = DetectorName.SIGNAL
    """signal: a small signal detector; pretrained: a better one, from the extra `detector`; stub: instant figures for load tests."""
    threshold: float = 0.5
    """The probability from which a frame counts as music or speech."""
    short_windows: Flag = False
    """Send a last window of less than 4 s."""
    newer_windows: Flag = False
    """Send windows in the newer shape, with probabilities that may be null."""
    source_duration: Flag = False
    """Let the duration in the summary of music be that of the source, not that of its frames."""
    ignore_container_rate: Flag = False
    """Ignore sample_rate and num_channels with a container, instead of refusing them."""
    max_session_hours: float | None = None
    """Audio-hours from which an object cannot be processed."""
    speed: float | None = None
    """Analyse at most so many times as fast as real time."""
    fault: Annotated[tuple[str, ...], Several] = ()
    """A fault that every session has, as in close=4003@items=5: see the list below. May be given several times."""
    fault_mix: Annotated[tuple[str, ...], Several] = ()
    """PROBABILITY:FAULT: a fault that a session has by chance, as in 0.05:abrupt=4029. May be given several times; a session gets one."""
    fault_seed: int = 0
    """The same seed deals the same faults to the same sessions, by their number."""
    scripted: Flag = False
    """Give the AI verdict that a connection asks for with scripted_verdict=ai-vocal-music, ai-instrumental or not-ai-music."""
    verdict: Annotated[tuple[str, ...], Several] = ()
    """PATTERN=VERDICT: the AI verdict on files of the catalogue whose name matches a glob, the first that does. Implies --scripted."""
    catalogue: Path | None = None
    """The folder whose files --verdict is about: they are recognised by their first 4 KiB, since the protocol carries no names."""


def _faults() -> str:
    rows = "\n".join(f"| `{usage}` | {does} |" for usage, does in faults_help())
    return f"""Faults, each with the place where it happens unless another is said (@upgrade, @bytes=N, @items=N, @end, @done); a+b is both:

| fault | |
|---|---|
{rows}
"""


FAULTS_HELP = _faults()
"""The table of faults, for `--help`."""
