"""The operator's commands about the ledger: status, pause, resume, and `ledger show | adjust | sweep | give-up | rebuild`."""

import asyncio

from cyclopts import App

from flows.flags import Flag, Json
from moderation.outcomes import ExitCode

ledger = App(name="ledger", help="Look into the ledger, correct it, settle what dead workers left, and make it anew.")


def status(org: str | None = None, *, results: str | None = None, json: Json = False) -> int:
    """Show limits, live sessions, hours and breakers of this month, from any host that reaches the ledger.

    Spent hours had a result; possible ones were sent in sessions that failed, and may be billed; reserved ones stream now. Costs are
    estimated: these hours at the price that is set today.

    Examples:

        soundcheck status

        soundcheck status acme --json

    Parameters
    ----------
    org
        One organisation; all by default.
    results
        The results folder, where the ledger lies beside it.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json  # noqa: PLC0415 - every command imports what it alone needs
    from flows.ledger import statuses  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.status import print_statuses  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    found = asyncio.run(statuses(load_settings(results=results), org, now))
    if json:
        say_json({"organisations": [each.as_json() for each in found]})
    else:
        print_statuses(found)
    return ExitCode.OK


def pause(org: str, *, results: str | None = None) -> int:
    """Start no more sessions of an organisation, on any host, until it is resumed; what streams goes on.

    Examples:

        soundcheck pause acme

    Parameters
    ----------
    org
        The organisation's name in the settings.
    results
        The results folder, where the ledger lies beside it.
    """
    return _set_paused(org, results, paused=True)


def resume(org: str, *, results: str | None = None) -> int:
    """End a pause.

    Examples:

        soundcheck resume acme

    Parameters
    ----------
    org
        The organisation's name in the settings.
    results
        The results folder, where the ledger lies beside it.
    """
    return _set_paused(org, results, paused=False)


def _set_paused(org: str, results: str | None, *, paused: bool) -> int:
    from flows.console import stdout  # noqa: PLC0415
    from flows.ledger import pause as set_paused  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    asyncio.run(set_paused(load_settings(results=results), org, paused=paused))
    stdout.print(f"{org} is paused: nothing more starts" if paused else f"{org} goes on", highlight=False)
    return ExitCode.OK


@ledger.command
def show(org: str | None = None, *, results: str | None = None, json: Json = False) -> int:
    """Show what `soundcheck status` shows, with every session that streams and every correction (with --json)."""
    return status(org, results=results, json=json)


@ledger.command
def adjust(
    org: str,
    *,
    month: str,
    reason: str,
    endpoint: str = "*",
    spent: float = 0.0,
    possible: float = 0.0,
    results: str | None = None,
) -> int:
    """Correct the hours of a month, such as after the vendor's bill; who did it and why stays on record.

    Examples:

        soundcheck ledger adjust acme --month 2026-11 --possible -1.5 --reason "invoice 4711: failed sessions were not billed"

    Parameters
    ----------
    org
        The organisation's name in the settings.
    month
        Such as 2026-11.
    reason
        Why, in a few words.
    endpoint
        music or ai_music, which changes the organisation's figures, too; * changes those alone.
    spent
        Audio-hours to add to what was spent; negative to take away.
    possible
        Audio-hours to add to what was possibly spent; negative to take away.
    results
        The results folder, where the ledger lies beside it.
    """
    import secrets  # noqa: PLC0415

    from flows.ledger import Correction, statuses  # noqa: PLC0415
    from flows.ledger import adjust as correct  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.status import print_statuses  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    settings = load_settings(results=results)
    asyncio.run(correct(settings, Correction(org, endpoint, month, spent, possible, reason), secrets.token_bytes, now))
    print_statuses(asyncio.run(statuses(settings, org, now)))
    return ExitCode.OK


@ledger.command
def sweep(*, results: str | None = None) -> int:
    """End the sessions whose workers have died, by what the spool that this host sees has of them: their objects are free again, or done.

    Every run does this at its start; between runs it frees the hours that dead sessions reserve.
    """
    from flows.console import stdout  # noqa: PLC0415
    from flows.ledger import sweep as settle  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    ended = asyncio.run(settle(load_settings(results=results)))
    stdout.print(f"{ended} sessions of dead workers were ended", highlight=False)
    return ExitCode.OK


@ledger.command
def give_up(package: str, *, results: str | None = None, json: Json = False) -> int:
    """Undo a package whose paid results are lost for good: their objects are streamed, and paid for, again by the next run.

    A run that cannot publish a package names it. What the spool still has of it is published with another one; the hours of the lost
    results stay spent.

    Examples:

        soundcheck ledger give-up 20261121T194427Z-0a1b2c-p0001

    Parameters
    ----------
    package
        The package's name.
    results
        The results folder, or s3://bucket/prefix, where the settings do not name it.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.ledger import give_up as undo  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    lost = asyncio.run(undo(load_settings(results=results), package))
    if json:
        say_json({"package": package, "lost": lost})
    else:
        stdout.print(f"{lost} results of {package} were given up: their objects are free", highlight=False)
    return ExitCode.OK


@ledger.command
def rebuild(*, results: str | None = None, replace: Flag = False, json: Json = False) -> int:
    """Make the ledger anew from the results and the spool that this host sees, where it is lost or damaged. Stop every run before.

    What is published is never streamed again, and what it cost is in the figures. A file that was there is kept beside the new one; it says
    what cannot be restored.

    Examples:

        soundcheck ledger rebuild

        soundcheck ledger rebuild --results s3://moderation-results/velma --json

    Parameters
    ----------
    results
        The results folder, or s3://bucket/prefix, where the settings do not name it.
    replace
        Replace a PostgreSQL ledger that has sessions; keep a dump of it.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.rebuild import rebuild as make_anew  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    done = asyncio.run(make_anew(load_settings(results=results), now, replace=replace))
    if json:
        say_json(done.as_json())
    else:
        for line in done.lines():
            stdout.print(line, highlight=False, markup=False, soft_wrap=True)
    return ExitCode.OK
