"""The commands that keep the results in order: `soundcheck verify`, `compact`, `reconcile` and `erase`; and `overdue`."""

import asyncio
from datetime import date, timedelta
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.flags import THE_LAKE, Flag, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode


def verify(*, results: str | None = None, since: date | None = None, json: Json = False) -> int:
    """Look through every published file: is each what was written, is anything missing, twice, misplaced or foreign?

    Nothing is changed. 0 where nothing is wrong, 1 with a table of what is, and what to do about it. What runs publish meanwhile is no
    finding.

    Examples:

        soundcheck verify --results out

        soundcheck verify --results s3://moderation/velma --since 2026-11-01 --json

    Parameters
    ----------
    results
        A folder, or s3://bucket/prefix.
    since
        Only what runs have left that began on this day (UTC) or later.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415 - every command imports what it alone needs
    from flows.maintenance import print_verification, verify_results  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    done = verify_results(load_settings(results=results), now, since)
    if json:
        say_json(done.as_json())
    else:
        print_verification(done, stdout)
    return done.exit_code


def compact(*, results: str | None = None, before: date | None = None, json: Json = False) -> int:
    """Make few large files, sorted by object, of the many small ones that runs have published on closed days.

    Each is verified before its originals are deleted; where this breaks off, run it again. Until it has ended, whoever reads the files by a
    bare glob can see rows twice. Attempts and quarantine stay as they are.

    Examples:

        soundcheck compact --results out

        soundcheck compact --results s3://moderation/velma --before 2026-11-01

    Parameters
    ----------
    results
        A folder, or s3://bucket/prefix.
    before
        The days (UTC) before this one; by default those before yesterday.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.maintenance import compact_results  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    done = compact_results(load_settings(results=results), now, before)
    if json:
        say_json(done.as_json())
    else:
        stdout.print(done.sentence(), highlight=False, markup=False, soft_wrap=True)
    return ExitCode.OK


def reconcile(
    *sources: str, results: str | None = None, every: Annotated[bool, Parameter(name="--list", negative="")] = False, json: Json = False
) -> int:
    """Hold catalogue, ledger and results against each other: is each object done once, or is there a reason why not?

    One symbol an object and endpoint: = done once, q quarantined, p pending with a reason; not explained are - missing, + extra, * differs.
    The catalogue is the newest complete listing of every source. Nothing is changed. 0 where all is explained, 1 with a table of what is
    not, and what to do about it. Runs may go on meanwhile.

    Examples:

        soundcheck reconcile --results out

        soundcheck reconcile s3://music-uploads/2026/ --results s3://moderation/velma --json

        soundcheck reconcile --results out --list

    Parameters
    ----------
    sources
        Only what these sources list, each written as for the scans of it.
    results
        A folder, or s3://bucket/prefix.
    every
        Print every object on a line: symbol, endpoint, place. With --json have every object in it.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.reconciliation import print_reconciliation, reconciled_results  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    async def tell() -> int:
        async with reconciled_results(load_settings(results=results), now, sources) as done:
            if json:
                say_json(done.as_json(every=every))
            elif every:
                for line in done.lines():
                    stdout.print(line, highlight=False, markup=False, soft_wrap=True)
            else:
                print_reconciliation(done, stdout)
            return done.exit_code

    return asyncio.run(tell())


def erase(
    what: str, *, bucket: str | None = None, reason: str = "", results: str | None = None, dry_run: Flag = False, json: Json = False
) -> int:
    """Erase an object, every version of its key or one by its id: all rows in all results, manifests, plans and the spool included.

    It is never streamed again, and what it cost stays in the figures. A receipt without the key lies in the results. Where this breaks off,
    run it again. Not touched: the audio itself, logs and transcripts, and what a run was asked for, such as a key in its --where.

    Examples:

        soundcheck erase s3://music-uploads/2026/one.mp3 --reason "request 4711"

        soundcheck erase 6f1d0f5b0a3c4a1e9b7d2c8e4f5a6b7c --reason "request 4711"

        soundcheck erase "albums/one.mp3" --bucket /srv/audio --dry-run

    Parameters
    ----------
    what
        The object's address s3://bucket/key; an object_key_id (every version) or object_id (one version); with --bucket, the key alone.
    bucket
        The bucket, or the folder that was scanned.
    reason
        Why, in a few words without the key: it stays on record in the receipt. Needed but for --dry-run.
    results
        A folder, or s3://bucket/prefix. Without it every place that the settings name for results.
    dry_run
        Change nothing, and say what would go.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.erasure import erase as erase_object  # noqa: PLC0415
    from flows.erasure import print_erasure  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    done = asyncio.run(erase_object(load_settings(results=results), now, what, bucket, reason, dry=dry_run))
    if json:
        say_json(done.as_json())
    else:
        print_erasure(done, stdout)
    return ExitCode.OK


def overdue(
    *source: str,
    every_hours: Annotated[float, Parameter(validator=Number(gt=0))] = 24.0,
    lake: Annotated[LakeFlags, Flat] = THE_LAKE,
    json: Json = False,
) -> int:
    """Look whether scans complete as often as they are to, and tell people once where one is overdue: for a schedule of its own.

    A scan is overdue when the next one is due and it has not completed: whether it never began, hangs, was killed, or stopped. 0 where
    scans are in time, else 1. Who is told, and how, is set as for runs (notify_url, notify_people).

    Examples:

        soundcheck overdue s3://music-uploads/ --results s3://moderation/velma

        soundcheck overdue s3://music-uploads/live/ --every-hours 1 --json

    Parameters
    ----------
    source
        Those of the scan, written as for it. Without any every scan of the organisation counts.
    every_hours
        The interval of the schedule, in hours.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, shown, stdout  # noqa: PLC0415
    from flows.overdue import look_for_scans  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    done = asyncio.run(look_for_scans(lake.settings(), source, timedelta(hours=every_hours), now))
    if json:
        say_json(done.as_json())
    else:
        stdout.print(shown(done.sentence()), soft_wrap=True)
    return done.exit_code
