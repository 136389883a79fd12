"""The command `soundcheck decide`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import LimitedChoice

from flows.flags import THE_LAKE, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode

_OTHERWISE = Group("Instead of deciding (one of them)", validator=LimitedChoice())


def decide(
    *,
    policy: Path | None = None,
    diff: Annotated[str | None, Parameter(group=_OTHERWISE)] = None,
    starter: Annotated[bool, Parameter(negative="", group=_OTHERWISE)] = False,
    lake: Annotated[LakeFlags, Flat] = THE_LAKE,
    json: Json = False,
) -> int:
    """Decide about every object by a policy: allow, review or block, from what scans have found. Nothing is streamed.

    Only what is new or has changed is written, into the dataset decisions: to run it again writes nothing. What people have answered
    (soundcheck review import) counts more, in the view decisions_now.

    Examples:

        soundcheck decide --starter > policy.toml

        soundcheck decide --policy policy.toml --results out

        soundcheck decide --policy stricter.toml --diff policy.toml --results out

        soundcheck decide --policy stricter.toml --diff 8452afb4d2303e48 --results out --json

    Parameters
    ----------
    policy
        The file of the policy (TOML); by default that of the settings.
    diff
        Decide nothing, but show what flips from this policy to that of --policy: a file, or the hash of one that has decided here.
    starter
        Print a policy to begin with.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    import asyncio  # noqa: PLC0415 - every command imports what it alone needs
    import sys  # noqa: PLC0415

    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.deciding import compare, decide_results, print_comparison, print_decisions, tell  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415
    from tasks.decide import STARTER  # noqa: PLC0415

    if starter:
        sys.stdout.write(STARTER.read_text(encoding="utf-8"))
        return ExitCode.OK
    settings = lake.settings(policy=policy)
    if diff is not None:
        compared = compare(settings, diff)
        if json:
            say_json(compared.as_json())
        else:
            print_comparison(compared, stdout)
        return ExitCode.OK
    decided = decide_results(settings, now)
    asyncio.run(tell(settings, decided))
    if json:
        say_json(decided.as_json())
    else:
        print_decisions(decided, stdout)
    return ExitCode.OK
