"""The command `soundcheck iam-policy`: what AWS must allow, and no more."""

import json
import sys
from typing import Annotated, Literal

from flows.flags import Flag, Several
from moderation.outcomes import ExitCode


def iam_policy(
    *,
    catalogue: Annotated[tuple[str, ...], Several] = (),
    results: str | None = None,
    versions: Flag = False,
    partition: Literal["aws", "aws-cn", "aws-us-gov"] = "aws",
) -> int:
    """Print the IAM policy of scans, verify and compact: least privilege, made of the requests that they send.

    Without flags it is for the roots of every organisation, and for the results, of the settings.

    Examples:

        soundcheck iam-policy --catalogue s3://music-uploads/2026/ --results s3://moderation/velma

        soundcheck iam-policy --catalogue s3://music-uploads/ --catalogue s3://inventories/music-uploads/ --versions > policy.json

    Parameters
    ----------
    catalogue
        A prefix that is scanned, or where an inventory or a key list lies. May be given several times.
    results
        s3://bucket/prefix.
    versions
        Also old versions of objects: for inventories and key lists that name them.
    partition
        Of the ARNs.
    """
    from connectors.lake.ddl import root_of  # noqa: PLC0415 - every command imports what it alone needs
    from connectors.s3 import S3Uri, policy  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415
    from moderation.errors import ConfigurationError  # noqa: PLC0415

    settings = load_settings(results=results)
    organisations = settings.organisations.values()
    scanned = catalogue or tuple(settings.roots) + tuple(root for each in organisations for root in each.roots)
    place = settings.results if settings.results and "://" in settings.results else None
    if not scanned and place is None:
        raise ConfigurationError("a policy for what? Give --catalogue s3://bucket/prefix and --results s3://bucket/prefix")
    document = policy(
        [S3Uri.parse(each) for each in scanned],
        None if place is None else S3Uri.parse(f"{root_of(place)}/"),
        versions=versions,
        partition=partition,
    )
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return ExitCode.OK
