"""S3 for everyone: one way to make a client, one type for an address, and one sentence for each thing that goes wrong."""

from connectors.s3.address import S3Uri
from connectors.s3.caller import S3Caller
from connectors.s3.client import S3Settings, is_open_to_changes, s3_client
from connectors.s3.dates import tell_dates
from connectors.s3.failures import S3_ERRORS, explain
from connectors.s3.links import audio_link
from connectors.s3.policy import policy

__all__ = [
    "S3_ERRORS",
    "S3Caller",
    "S3Settings",
    "S3Uri",
    "audio_link",
    "explain",
    "is_open_to_changes",
    "policy",
    "s3_client",
    "tell_dates",
]
