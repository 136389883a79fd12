"""The commands `soundcheck scan` and `soundcheck plan`, which `scan --dry-run` is, too."""

from typing import Annotated

from flows.flags import AS_SET, Flag, Flat, Json, RunFlags
from flows.request import WHOLE, Portion, Request
from flows.run_commands import go_on, run, show_plan


def scan(
    *source: str,
    portion: Annotated[Portion, Flat] = WHOLE,
    flags: Annotated[RunFlags, Flat] = AS_SET,
    cascade: str | None = None,
    resume: str | None = None,
    anyway: Flag = False,
    dry_run: Flag = False,
    direct: Flag = False,
    json: Json = False,
) -> int:
    """Scan the audio of some sources, and publish what the service finds as Parquet.

    What is done is never streamed again. Settings come from SOUNDCHECK_* variables, .env and soundcheck.toml; the key from
    SOUNDCHECK_API_KEY, a file or a Prefect Secret block; S3 from the usual AWS variables.

    Examples:

        soundcheck scan s3://music-uploads/2026/ --results s3://moderation-results/velma

        soundcheck scan s3://music-uploads/ --results out --endpoint music --direct --json

        soundcheck scan s3://music-uploads/ --exclude "*/previews/*" --modified-from 2026-11-01 --max-hours 20

        soundcheck scan s3://music-uploads/ --results out --cascade "music_pct >= 10"

        soundcheck scan inventory:s3://inventories/music-uploads/daily/2026-11-20T01-00Z/manifest.json --results out

        soundcheck scan s3://acme-uploads/2026/ --org acme

        soundcheck scan keys:disputed.csv --bucket music-uploads

        soundcheck scan --resume 20261121T101500Z-3fa2c1

    Parameters
    ----------
    source
        s3://bucket/prefix (taken literally), inventory:s3://bucket/path/manifest.json, keys:FILE (CSV, Parquet or JSON lines, here or
        in S3), or a folder of this machine. May be given several times.
    portion
        Which objects of the sources.
    flags
        Who pays, where results go, and what is asked how.
    cascade
        What a music result must say for the AI-music endpoint to be asked, as SQL over the columns of music_summaries; "" asks always.
    resume
        The run_id of a run of any kind that did not come to its end, instead of a source: its error names it, and so does the view
        runs_latest. A listing goes on behind its last page, a plan with exactly its rest.
    anyway
        Resume though settings that shape a plan have changed since, or though the run seems to be running still.
    dry_run
        Only say what a scan would stream, as `soundcheck plan` does.
    direct
        Run the same functions without Prefect, for small on-demand work.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    if resume is not None:
        anew = bool(source or dry_run or cascade is not None or portion != WHOLE)
        return go_on(resume, flags, wanted_anew=anew, anyway=anyway, direct=direct, json=json)
    settings, request = flags.settings(cascade), Request(source, portion)
    if dry_run:
        return show_plan(settings, request, json=json)
    return run(settings, request, direct=direct, json=json)


def plan(
    *source: str,
    portion: Annotated[Portion, Flat] = WHOLE,
    flags: Annotated[RunFlags, Flat] = AS_SET,
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
        As for `soundcheck scan`.
    portion
        Which objects of the sources.
    flags
        Who pays, where results go, and what is asked how.
    cascade
        What a music result must say for the AI-music endpoint to be asked, as SQL over the columns of music_summaries; "" asks always.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    return show_plan(flags.settings(cascade), Request(source, portion), json=json)
