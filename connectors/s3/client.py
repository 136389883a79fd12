"""The one way to make an S3 client."""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from connectors.s3.address import shown
from connectors.s3.dates import read_date
from connectors.s3.failures import explain
from moderation.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach S3. What is None is left to AWS's own chain: environment variables, profile, instance role.

    endpoint_url is for S3-compatible stores. path_style None means: path-style with an endpoint of one's own, else virtual hosts.
    anonymous sends unsigned requests, for public buckets. Timeouts are in seconds. max_attempts counts the first request, too.
    Making one raises ConfigurationError for an endpoint that is no URL.
    """

    endpoint_url: str | None = None
    region: str | None = None
    path_style: bool | None = None
    anonymous: bool = False
    max_pool_connections: int = 32
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_attempts: int = 5

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)

    def resolved(self) -> "S3Settings":
        """The same settings with the endpoint and region that botocore finds, for S3 readers that do not look where it looks."""
        client = _client(self)
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        endpoint = None if self.endpoint_url is None and _AWS_HOST.search(host) else client.meta.endpoint_url
        return replace(self, endpoint_url=endpoint, region=client.meta.region_name)


_AWS_HOST = re.compile(r"\.amazonaws\.com(\.cn)?$")
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def s3_client(settings: S3Settings) -> "S3Client":
    """A client with botocore's `standard` retries, the only layer that retries S3 (rules.md); it may be shared between threads.

    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile's endpoint are honoured. Raises ConfigurationError where the AWS configuration
    itself is broken; missing credentials show only at the first request.
    """
    return _client(settings if settings.endpoint_url else settings.resolved())


def _client(settings: S3Settings) -> "S3Client":
    config = Config(
        region_name=settings.region,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.max_pool_connections,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        s3={"addressing_style": _addressing_style(settings)},
        # boto3's default sends and asks for checksums that many compatible stores refuse
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # what requests are signed with by default, and links are not everywhere: buckets since 2020 refuse the older way
        signature_version=UNSIGNED if settings.anonymous else "s3v4",
        # a proxy cannot reach this host's loopback
        proxies={} if _is_loopback(settings.endpoint_url) else None,
        # made anew for every request, boto3's own takes a tenth of its CPU
        user_agent=f"soundcheck Boto3/{boto3.__version__}",
    )
    try:
        return boto3.session.Session(botocore_session=_session()).client("s3", endpoint_url=settings.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise explain(error, "setting up S3") from error


def is_open_to_changes(client: "S3Client") -> bool:
    """Whether bytes on their way from S3 could be changed without anybody noticing: over a network, and without TLS."""
    endpoint_url = client.meta.endpoint_url
    return urlsplit(endpoint_url).scheme == "http" and not _is_loopback(endpoint_url)


def _session() -> botocore.session.Session:
    """What finds credentials and region, anew each time, over descriptions of AWS that are read once: they are megabytes of JSON."""
    session = botocore.session.Session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_date)
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)


def _addressing_style(settings: S3Settings) -> Literal["path", "auto"]:
    path_style = settings.endpoint_url is not None if settings.path_style is None else settings.path_style
    return "path" if path_style else "auto"


def _is_loopback(endpoint_url: str | None) -> bool:
    return endpoint_url is not None and urlsplit(endpoint_url).hostname in _LOOPBACK_HOSTS


def _check_endpoint(endpoint_url: str) -> None:
    try:
        parts = urlsplit(endpoint_url)
        has_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_address = False
    if not has_address:
        raise ConfigurationError(f"S3 endpoint {shown(endpoint_url)} is no URL: write https://host or http://host:port")
    if "@" in parts.netloc:
        raise ConfigurationError("the S3 endpoint has a user name or password in it: take it out and set AWS credentials instead")
