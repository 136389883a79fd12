"""Links to audio that open without credentials until they expire: whoever has one can listen."""

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from moderation.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LONGEST_HOURS = 168.0
"""Of a presigned link, by AWS; one that temporary credentials sign ends with these, too."""


def audio_link(client: "S3Client", bucket: str, key: str, version_id: str | None, hours: float, start_ms: int | None = None) -> str:
    """A presigned link to an object, or that version of it, which plays from start_ms on (a media fragment). Nothing is sent for it.

    Raises ConfigurationError without credentials.
    """
    place: dict[str, Any] = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
    try:
        url = client.generate_presigned_url("get_object", Params=place, ExpiresIn=round(hours * 3600))
    except (BotoCoreError, ClientError) as error:
        raise ConfigurationError(
            f"no link to audio can be signed ({type(error).__name__}): check the AWS credentials, or unset link_hours"
        ) from error
    return f"{url}#t={start_ms / 1000:g}" if start_ms else url
