"""The commands `soundcheck review export | import | precision | serve`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from flows.flags import THE_LAKE, Flag, Flat, Json, LakeFlags
from moderation.outcomes import ExitCode

Count = Annotated[int | None, Parameter(validator=Number(gte=1))]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]

review = App(name="review", help="Let people answer what policies have decided, and see how often they agree.")


@review.command(name="export")
def export_sheet(
    file: Path, *, where: str | None = None, limit: Count = None, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False
) -> int:
    """Write what waits for a person into a CSV or Parquet file, the most urgent first, with empty columns for the answer.

    Fill in `answer` (allow, block or unsure), and where you like `reviewer`, `answered_at` and `note`, then import it. Cells that a
    spreadsheet would take for a formula have an apostrophe in front.

    Examples:

        soundcheck review export queue.csv --results out --limit 200

        soundcheck review export blocked.parquet --where "decision = 'block' and rule_id = 'ai-voices-certain'"

    Parameters
    ----------
    file
        A name that ends in .csv or .parquet.
    where
        Rows of the view decisions_now that this SQL predicate is true of; by default what is to be reviewed and has no answer.
    limit
        Only the first so many.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415 - every command imports what it alone needs
    from flows.reviewing import export  # noqa: PLC0415

    done = export(lake.settings(), file, where, limit)
    if json:
        say_json(done.as_json())
    else:
        stdout.print(done.sentence(), highlight=False, markup=False, soft_wrap=True)
    return ExitCode.OK


@review.command(name="import")
def import_sheet(file: Path, *, reviewer: str | None = None, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False) -> int:
    """Put the answers of a sheet on record: they count more than any policy, and none is ever overwritten.

    All of them are taken or, where something is wrong, none; rows without an answer are passed over. Importing a sheet again adds nothing.

    Examples:

        soundcheck review import queue.csv --results out --reviewer ada

    Parameters
    ----------
    file
        A CSV or Parquet file with the columns object_id and answer, and where there are any reviewer, answered_at and note.
    reviewer
        Whose the answers are where a row does not say; by default yours.
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    import asyncio  # noqa: PLC0415

    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.reviewing import take_in, tell_imported  # noqa: PLC0415
    from flows.wiring import now  # noqa: PLC0415

    settings = lake.settings()
    done = take_in(settings, file, reviewer, now)
    asyncio.run(tell_imported(settings, done))
    if json:
        say_json(done.as_json())
    else:
        stdout.print(done.sentence(), highlight=False, markup=False, soft_wrap=True)
    return ExitCode.OK


@review.command(name="precision")
def show_precision(*, lake: Annotated[LakeFlags, Flat] = THE_LAKE, json: Json = False) -> int:
    """Show how often people agree with each rule, month by month (UTC), by the last answer on each object that decides.

    Expected is what makes the rule right: block where it sends to review or blocks, allow where it allows (hold_out is the sample of that).

    Examples:

        soundcheck review precision --results out

    Parameters
    ----------
    lake
        Whose results.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json, stdout  # noqa: PLC0415
    from flows.reviewing import print_precision, rule_precision  # noqa: PLC0415

    rows = rule_precision(lake.settings())
    if json:
        months = [row | {"month": row["month"].isoformat()} for row in rows.to_dicts()]
        say_json({"rules": months, "exit_code": int(ExitCode.OK)})
    else:
        print_precision(rows, stdout)
    return ExitCode.OK


@review.command(name="serve")
def serve_page(
    *,
    where: str | None = None,
    reviewer: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 0,
    remote: Flag = False,
    lake: Annotated[LakeFlags, Flat] = THE_LAKE,
    json: Json = False,
) -> int:
    """Serve a page on this machine to look through decisions, listen to what they are about, and answer them.

    It prints an address with a token: whoever has it can listen and answer. Answers go on record at once, as those of an imported sheet do.
    Audio is read from where it lies, as it was scanned: what was overwritten since is not played.

    Examples:

        soundcheck review serve --results out --reviewer ada

        soundcheck review serve --where "rule_id = 'ai-voices-certain'" --port 8770

    Parameters
    ----------
    where
        Rows of the view decisions_now that this SQL predicate is true of; by default what is to be reviewed, blocked or answered.
    reviewer
        Whose the answers are; by default yours.
    host
        The address to listen on.
    port
        0 takes any free one.
    remote
        Allow a host that other machines reach. Nothing is encrypted: a tunnel (ssh -L) to 127.0.0.1 is better.
    lake
        Whose results.
    json
        Print one line with url and pid when it listens.
    """
    import asyncio  # noqa: PLC0415

    from flows.review_page.server import PageOptions, serve_review  # noqa: PLC0415

    options = PageOptions(where=where, reviewer=reviewer, host=host, port=port, remote=remote)
    asyncio.run(serve_review(lake.settings(), options, as_json=json))
    return ExitCode.OK
