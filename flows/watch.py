"""A run as seen from outside: what it has done, how it ended, and the way to stop it."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from flows.report import Report
from flows.request import Request
from flows.settings import Settings
from moderation.errors import SoundcheckError
from moderation.outcomes import Reason, StopCause
from tasks.admission import Stop
from tasks.progress import Progress
from tasks.report import RunReport


class Streams(Protocol):
    """Whatever streams for a run: the sessions of this process, or workers."""

    def drop_all(self) -> None:
        """End what streams now, or wait for it no longer. The run must have been stopped before."""


@dataclass(slots=True)
class Watch:
    """What a person, or another program, has of a run: its progress while it runs, its report at the end, and the way to stop it."""

    progress: Progress = field(default_factory=Progress)
    stop: Stop = field(default_factory=Stop)
    settings: Settings | None = None
    """Settings that count instead of those that the flow would load."""
    request: Request | None = None
    """The same of what is asked for."""
    report: Report | None = None
    figures: RunReport | None = None
    """What its page for people shows, where it has left one."""
    error: SoundcheckError | None = None
    streams: Streams | None = None
    task: "asyncio.Task[object] | None" = None
    """The one that lists, plans and streams, while it does."""
    broken_off: bool = False

    def terminate(self, wanted_by: str = "a signal") -> None:
        """Start nothing more; what streams may finish."""
        message = f"stopped by {wanted_by}: what had not started stays pending, and the next run does exactly the rest"
        self.stop.request(StopCause.TERMINATED, Reason.NOT_REACHED, message)

    def drop(self) -> None:
        """End what streams now; before anything does, end the listing or planning."""
        if self.streams is not None:
            self.streams.drop_all()
        elif self.task is not None:
            self.broken_off = True
            self.task.cancel()
