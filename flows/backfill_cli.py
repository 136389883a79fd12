"""The commands that stream exactly what somebody names: `soundcheck backfill` and `soundcheck retry`."""

from typing import Annotated

from flows.flags import AS_SET, Flag, Flat, Json, RunFlags
from flows.request import WHOLE, FlowName, Portion, Request
from flows.run_commands import go_on, run, show_plan


def backfill(
    *source: str,
    where: str | None = None,
    portion: Annotated[Portion, Flat] = WHOLE,
    force: Flag = False,
    resume: str | None = None,
    anyway: Flag = False,
    flags: Annotated[RunFlags, Flat] = AS_SET,
    cascade: str | None = None,
    dry_run: Flag = False,
    direct: Flag = False,
    json: Json = False,
) -> int:
    """Stream what is named: prefixes, dates, a key list, or the objects for whose earlier results a condition holds.

    It goes ahead of scans that run at the same time, and shares the catalogue with them without paying twice. What it has planned is
    frozen: --resume goes on with exactly that.

    Examples:

        soundcheck backfill s3://music-uploads/2025/ --modified-from 2025-06-01 --modified-until 2025-07-01 --results out

        soundcheck backfill keys:disputed.csv --bucket music-uploads --force

        soundcheck backfill --where "music_pct > 50 and scan_date < '2026-06-01'" --endpoint ai_music --dry-run

        soundcheck backfill --resume 20261121T101500Z-3fa2c1

    Parameters
    ----------
    source
        As for `soundcheck scan`; besides --where, prefixes that the objects must lie in.
    where
        A condition in DuckDB's SQL over the views music_current and ai_music_current: of each endpoint that has its columns.
    portion
        Which objects of the sources.
    force
        Stream again what is done: it is paid again.
    resume
        The run_id of any run that did not come to its end, a scan or a retry, too: its error names it, and so does the view runs_latest. A
        listing goes on behind its last page, a plan with exactly its rest.
    anyway
        Resume though settings that shape a plan have changed since, or though the run seems to be running still.
    flags
        Who pays, where results go, and what is asked how.
    cascade
        What a music result must say for the AI-music endpoint to be asked, as SQL such as "music_pct >= 10".
    dry_run
        Only say what would be streamed, how long that is and what it costs.
    direct
        Run the same functions without Prefect.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    if resume is not None:
        anew = bool(source or where or force or dry_run or cascade is not None or portion != WHOLE)
        return go_on(resume, flags, wanted_anew=anew, anyway=anyway, direct=direct, json=json)
    settings, request = flags.settings(cascade), Request(source, portion, FlowName.BACKFILL, where, force)
    return show_plan(settings, request, json=json) if dry_run else run(settings, request, direct=direct, json=json)


def retry(
    *,
    where: str,
    portion: Annotated[Portion, Flat] = WHOLE,
    flags: Annotated[RunFlags, Flat] = AS_SET,
    direct: Flag = False,
    json: Json = False,
) -> int:
    """Release quarantined objects for which a condition holds, and stream them at once.

    Examples:

        soundcheck retry --where "reason = 'undecodable'" --results out

        soundcheck retry --where "reason = 'incomplete' and key like 'labels/%'" --endpoint music

    Parameters
    ----------
    where
        A condition in DuckDB's SQL over the view quarantined_now.
    portion
        Which of them.
    flags
        Who pays, where results go, and what is asked how.
    direct
        Run the same functions without Prefect.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    return run(flags.settings(), Request((), portion, FlowName.RETRY, where), direct=direct, json=json)
