"""The commands `soundcheck notices list | resend`."""

from typing import Annotated

from cyclopts import App

from flows.flags import THE_LAKE, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode

notices = App(name="notices", help="See what those who are to be told did not take, and send it again.")


@notices.command(name="list")
def list_notices(*, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False) -> int:
    """Show the notices and events that have not arrived, the oldest first: nobody took them, or a process ended before.

    Examples:

        soundcheck notices list --results out

    Parameters
    ----------
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415 - every command imports what it alone needs
    from flows.dead_letters import as_json, print_letters, undelivered  # noqa: PLC0415

    letters = undelivered(lake.settings())
    if json:
        say_json({"undelivered": as_json(letters), "exit_code": int(ExitCode.OK)})
    else:
        print_letters(letters, stdout)
    return ExitCode.OK


@notices.command
def resend(*, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False) -> int:
    """Send them again, to where the settings say now; what is not taken stays, and the command ends with 69.

    An event has the same id however often it is sent: who receives it passes over one that is known.

    Examples:

        soundcheck notices resend --results out

    Parameters
    ----------
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    import asyncio  # noqa: PLC0415

    from flows.console import say_json, shown, stdout  # noqa: PLC0415
    from flows.dead_letters import as_json, send_again  # noqa: PLC0415

    sent, left = asyncio.run(send_again(lake.settings()))
    code = ExitCode.UNREACHABLE if left else ExitCode.OK
    if json:
        say_json({"sent": sent, "undelivered": as_json(left), "exit_code": int(code)})
    else:
        stdout.print(shown(f"{sent} were delivered, {len(left)} were not."), soft_wrap=True)
    return code
