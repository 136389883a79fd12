"""The command `soundcheck report`."""

from datetime import date
from pathlib import Path
from typing import Annotated

from flows.flags import THE_LAKE, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode


def report(
    run: str | None = None,
    *,
    since: date | None = None,
    until: date | None = None,
    out: Path | None = None,
    lake: Annotated[LakeFlags, Flat] = THE_LAKE,
    json: Json = False,
) -> int:
    """Make a page for people: what a run has scanned, spent and found, and what a policy has flagged, with timelines and time codes.

    The page is one HTML file that loads nothing. Every scan leaves one (setting report); this makes it anew, by what is known now.

    Examples:

        soundcheck report --results out

        soundcheck report 20261121T080000Z-0a1b2c --results out --out monday.html

        soundcheck report --since 2026-11-01 --until 2026-11-21 --out november.html --json

    Parameters
    ----------
    run
        The run; the newest by default.
    since
        All runs that began on this UTC day or later instead.
    until
        And on this UTC day or before.
    out
        The page's file; CSV and Parquet of the list go beside it. By default they go into the results, into the run's folder.
    lake
        Whose results.
    json
        Print the figures as one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, shown, stdout  # noqa: PLC0415 - every command imports what it alone needs
    from flows.reporting import Wanted, report_runs  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    wanted = Wanted(run, since, until, out)
    done = report_runs(lake.settings(), wanted, now)
    if json:
        say_json(done.as_json())
    else:
        stdout.print(shown(done.sentence()), soft_wrap=True)
    return ExitCode.OK
