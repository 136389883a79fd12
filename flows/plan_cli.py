"""The command `soundcheck plan`, which `soundcheck scan --dry-run` is, too."""

import asyncio
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from moderation.outcomes import ExitCode

Json = Annotated[bool, Parameter(name="--json", negative="")]
Count = Annotated[int | None, Parameter(validator=Number(gte=0))]
Hours = Annotated[float | None, Parameter(validator=Number(gte=0))]


def plan(
    source: str,
    *,
    org: str | None = None,
    results: str | None = None,
    endpoint: list[str] | None = None,
    sample: Count = None,
    limit: Count = None,
    max_hours: Hours = None,
    connections: int | None = None,
    monthly_hours: float | None = None,
    cascade: str | None = None,
    json: Json = False,
) -> int:
    """Say what a scan would stream, how many hours that is, what they cost and how long they take. Nothing is streamed, no key is needed.

    Objects are listed, and a few KiB are read of those that are not done: their headers say how long they are. Manifest and plan lie in
    the results, below _runs, for SQL.

    Examples:

        soundcheck plan s3://music-uploads/2026/ --results out

        soundcheck plan s3://music-uploads/ --results s3://moderation-results/velma --sample 1000 --json

    Parameters
    ----------
    source
        s3://bucket/prefix; the prefix is taken literally.
    org
        The organisation that would pay, where the settings have several.
    results
        A folder, or s3://bucket/prefix.
    endpoint
        music or ai_music; may be given twice. Both by default.
    sample
        Plan only so many objects, some of every format and size.
    limit
        Plan only the first so many objects that can be streamed.
    max_hours
        Plan only the first objects, up to so many audio-hours over all endpoints.
    connections
        The most sessions at once on each endpoint.
    monthly_hours
        The most audio-hours this calendar month (UTC), over all endpoints.
    cascade
        What a music result must say for the AI-music endpoint to be asked, as SQL such as "music_pct >= 10".
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json  # noqa: PLC0415 - every command imports what it alone needs
    from flows.plan import plan_scan  # noqa: PLC0415
    from flows.plan_tables import print_plan  # noqa: PLC0415
    from flows.run_settings import run_settings  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from tasks.cut import Cut  # noqa: PLC0415

    flags = {"org": org, "results": results, "endpoints": endpoint, "connections": connections, "monthly_hours": monthly_hours}
    settings = run_settings(load_settings(**flags, cascade=cascade), source, needs_key=False)
    report = asyncio.run(plan_scan(settings, source, Cut(sample, limit, max_hours)))
    if json:
        say_json(report.counts())
    else:
        print_plan(report)
    return ExitCode.OK
