"""The commands that keep the results in order: `soundcheck verify` and `soundcheck compact`."""

from datetime import date

from flows.flags import Json
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
