"""The command line: commands with --help and examples, progress on standard error, and with --json one object on standard output."""

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from flows.backfill_cli import backfill, retry
from flows.decide_cli import decide
from flows.flags import Flag, Json
from flows.ledger_cli import ledger, pause, resume, status
from flows.maintain_cli import compact, erase, overdue, reconcile, verify
from flows.notices_cli import notices
from flows.policy_cli import iam_policy
from flows.quarantine_cli import quarantine
from flows.report_cli import report
from flows.review_cli import review
from flows.scan_cli import plan, scan
from flows.serve_options import FAULTS_HELP, ServeOptions
from flows.sql_cli import sql
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode

INTERRUPTED = 130

app = App(
    name="soundcheck",
    help="Scan audio catalogues in S3 for music, speech and AI-made music through Modulate's Velma-2 streaming service.",
    version=lambda: version("soundcheck"),
    version_flags=["--version"],
    end_of_options_delimiter="",
    error_console=Console(stderr=True),
)


@app.command
def demo(
    *,
    catalogue: Path | None = None,
    results: Path = Path("demo-results"),
    direct: Flag = False,
    json: Json = False,
) -> int:
    """Scan a small catalogue on this machine alone: an embedded S3, a local Velma server, an embedded Prefect.

    The local server has a reference detector: its results are not Modulate's. A second run over the same results streams nothing.

    Examples:

        soundcheck demo

        soundcheck demo --catalogue ~/Music/test-clips --results out

    Parameters
    ----------
    catalogue
        A folder of audio files to scan instead of the generated samples. A catalogue.csv in it (columns file, truth) is compared with.
    results
        The folder for the Parquet; ledger, spool and logs lie in its _state.
    direct
        Run the same functions without Prefect.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from flows.console import say_json  # noqa: PLC0415
    from flows.demo import demonstrate, print_demonstration  # noqa: PLC0415 - every command imports what it alone needs
    from flows.terminal import print_summary  # noqa: PLC0415

    shown = asyncio.run(demonstrate(results, catalogue, direct=direct))
    if json:
        say_json(shown.counts())
    else:
        print_summary(shown.report)
        print_demonstration(shown)
    return shown.exit_code


@app.command(help_epilogue=FAULTS_HELP)
def serve(options: Annotated[ServeOptions, Parameter(name="*")], *, json: Json = False) -> int:
    """Run the local Velma server alone: both endpoints on loopback, with a reference detector that is not Modulate's model.

    Its organisation, journal and switches can be read and changed while it runs, below /admin/, with the token that it says.

    Examples:

        soundcheck serve --api-key YOUR_API_KEY

        soundcheck serve --api-key local-key-1 --port 0 --max-connections 5 --journal journal.jsonl --json

        soundcheck serve --api-key local-key-1 --fault buffer=20 --fault-mix 0.05:close=1011@items=5 --fault-seed 7

        soundcheck serve --api-key local-key-1 --verdict "ai/*=ai-vocal-music" --catalogue ~/Music/test-clips

        curl -H "Authorization: Bearer TOKEN" -X PATCH -d '{"revoke_keys": ["local-key-1"]}' http://127.0.0.1:8765/admin/organisation

    Parameters
    ----------
    options
        What the server is to be.
    json
        Print one line with url, admin_url, admin_token and pid when it listens.
    """
    from flows.serve import serve  # noqa: PLC0415

    asyncio.run(serve(options, as_json=json))
    return ExitCode.OK


@app.command
def serve_s3(*, port: int = 9000, catalogue: Path | None = None, json: Json = False) -> int:
    """Run a local S3 alone, for trials: on loopback, in memory, with a small sample catalogue in s3://catalogue/ and an empty s3://results/.

    It takes any credentials, and forgets everything when it ends. Needs the extra `local`.

    Examples:

        soundcheck serve-s3

        soundcheck serve-s3 --port 9000 --catalogue ~/Music/test-clips

    Parameters
    ----------
    port
        0 takes any free one.
    catalogue
        A folder of audio files to put there instead of the generated samples.
    json
        Print one line with the environment variables that lead AWS clients there, when it listens.
    """
    from flows.serve_s3 import serve_s3  # noqa: PLC0415

    asyncio.run(serve_s3(port, catalogue, as_json=json))
    return ExitCode.OK


@app.command
def doctor(
    source: str | None = None, *, org: str | None = None, results: str | None = None, velma_url: str | None = None, json: Json = False
) -> int:
    """Check key, endpoints, buckets, C speedups and Prefect, and say what to do about each. Nothing is streamed, no key is sent.

    Examples:

        soundcheck doctor s3://music-uploads/2026/ --results out

        soundcheck doctor --org acme

    Parameters
    ----------
    source
        The catalogue to be listed: s3://bucket/prefix. Without it every root of the organisation is.
    org
        The organisation, where the settings have several.
    results
        A folder, or s3://bucket/prefix.
    velma_url
        One host for every endpoint.
    json
        Print one JSON object on standard output, and nothing else there.
    """
    from dataclasses import asdict  # noqa: PLC0415

    from flows.console import say_json  # noqa: PLC0415
    from flows.doctor import examine, print_findings, worst  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    findings = asyncio.run(examine(load_settings(org=org, results=results, velma_url=velma_url), source))
    if json:
        say_json({"checks": [asdict(finding) for finding in findings], "exit_code": int(worst(findings))})
    else:
        print_findings(findings)
    return worst(findings)


app.command(scan)
app.command(plan)
app.command(backfill)
app.command(retry)
app.command(status)
app.command(pause)
app.command(resume)
app.command(ledger)
app.command(quarantine)
app.command(decide)
app.command(review)
app.command(report)
app.command(notices)
app.command(sql)
app.command(verify)
app.command(compact)
app.command(reconcile)
app.command(erase)
app.command(overdue)
app.command(iam_policy)


def main() -> None:
    """The console script: one message for an error, and the exit code of rules.md.

    It leaves without tearing the interpreter down: Prefect's registries would outlive DuckDB's module there, and DuckDB's binding
    prints pages about that. Everything that needs an end has had one by then.
    """
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code. Errors that are not ours show as what they are: defects, with their traceback."""
    from flows.console import say_error  # noqa: PLC0415

    try:
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return ExitCode.USAGE
    except SoundcheckError as error:
        say_error(str(error), error.exit_code, as_json="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(code or 0)
