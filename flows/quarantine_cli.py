"""The commands `soundcheck quarantine list | release`."""

from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, Group, Parameter

from flows.flags import THE_LAKE, Flag, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode


def _not_blank(kind: Any, words: str) -> None:
    del kind
    if not words.strip():
        raise ValueError("a release needs a reason: it stays on record")


def _one_of_two(given: ArgumentCollection) -> None:
    if len([argument for argument in given if argument.has_tokens and argument.value is not False]) != 1:
        raise ValueError("say what to release: either --where PREDICATE or --all")


_CHOICE = Group("What to release", validator=_one_of_two)
Where = Annotated[str | None, Parameter(group=_CHOICE)]
Everything = Annotated[bool, Parameter(name="--all", negative="", group=_CHOICE)]
Why = Annotated[str, Parameter(validator=_not_blank)]

quarantine = App(name="quarantine", help="See which objects need a person, and let them be scanned again.")


@quarantine.command(name="list")
def list_held(*, where: str | None = None, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False) -> int:
    """Show what needs a person: objects that no scan streams before they are released, by endpoint and reason, and the newest of them.

    Examples:

        soundcheck quarantine list --results out

        soundcheck quarantine list --where "reason = 'undecodable' and key like 'label-a/%'" --json

    Parameters
    ----------
    where
        Only rows of the view quarantined_now that this SQL predicate is true of.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415 - every command imports what it alone needs
    from flows.quarantine import held_now  # noqa: PLC0415
    from flows.quarantine_tables import as_json, print_held  # noqa: PLC0415
    from tasks.quarantine import EVERYTHING  # noqa: PLC0415

    settings = lake.settings()
    held = held_now(settings, EVERYTHING if where is None else where)
    if json:
        say_json({"org": settings.org, "held": held.height, **as_json(held), "exit_code": ExitCode.OK})
    elif held.is_empty():
        stdout.print(f"Nothing of {settings.org} is held{'' if where is None else ' that the predicate is true of'}.", highlight=False)
    else:
        print_held(held, f"{settings.org}: held until they are released")
    return ExitCode.OK


@quarantine.command
def release(
    *,
    where: Where = None,
    everything: Everything = False,
    reason: Why,
    dry_run: Flag = False,
    lake: Annotated[LakeFlags, Flat] = THE_LAKE,
    json: Json = False,
) -> int:
    """Let objects be planned and streamed again by the next scan; who released them and why stays on record in the dataset quarantine.

    What is still wrong with an object, or with the settings, has the next scan hold it again.

    Examples:

        soundcheck quarantine release --where "reason = 'source_error'" --reason "the policy is mended" --dry-run

        soundcheck quarantine release --where "key like 'label-a/%'" --reason "the label has sent new files"

    Parameters
    ----------
    where
        Rows of the view quarantined_now that this SQL predicate is true of.
    everything
        All that is held of the organisation.
    reason
        Why, in a few words.
    dry_run
        Only show what would be released.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    import secrets  # noqa: PLC0415

    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.quarantine import held_now  # noqa: PLC0415
    from flows.quarantine import release as let_go  # noqa: PLC0415
    from flows.quarantine_tables import as_json, print_held  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415
    from moderation.identity import run_id  # noqa: PLC0415
    from tasks.quarantine import EVERYTHING  # noqa: PLC0415
    from tasks.records import Run  # noqa: PLC0415

    settings, at = lake.settings(), now()
    run = Run(run_id(at, secrets.token_bytes(3)), settings.org, at)
    predicate = EVERYTHING if everything or where is None else where
    released = held_now(settings, predicate) if dry_run else let_go(settings, run, predicate, reason)
    if json:
        named = {"org": settings.org, "run_id": run.run_id, "dry_run": dry_run, "released": released.height}
        say_json({**named, **as_json(released), "exit_code": ExitCode.OK})
    elif released.is_empty():
        stdout.print(f"Nothing of {settings.org} is held that the predicate is true of: nothing to release.", highlight=False)
    else:
        print_held(released, f"{settings.org}: {'would be released' if dry_run else 'released, for the next scan to plan'}")
    return ExitCode.OK
