"""One configured S3 client, one address type, one sentence an error: against a real server, a closed port, and answers made by hand."""

import socket
import ssl
import threading
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from connectors.local_s3 import LocalS3
from connectors.s3 import S3_ERRORS, S3Settings, S3Uri, explain, s3_client
from connectors.s3.dates import read_date
from moderation.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialsRefused,
    ResultsNotWritable,
    SoundcheckError,
    SourceArchived,
    SourceChanged,
    SourceError,
    SourceGone,
    UnreachableError,
)

KMS = "User: arn:aws:iam::1:user/u is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-3:1:key/k"
DOING = "reading s3://catalogue/a.wav"
QUICK = {"max_attempts": 1, "connect_timeout": 2.0, "read_timeout": 2.0}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """No test sees the credentials or settings of whoever runs it, nor looks for an instance role."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAABCDEFGHIJKLMNOP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")


@pytest.fixture(scope="module")
def local_s3():
    with LocalS3() as server:
        yield server


@pytest.fixture
def client(local_s3):
    client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region="us-east-1", max_attempts=1))
    client.create_bucket(Bucket="catalogue")
    client.put_object(Bucket="catalogue", Key="a.wav", Body=b"audio")
    yield client
    client.close()


def explained(call, doing: str = DOING) -> SoundcheckError:
    with pytest.raises(S3_ERRORS) as caught:
        call()
    return explain(caught.value, doing)


def answered(code: str, status: int, operation: str = "GetObject", message: str = "", headers: dict | None = None) -> ClientError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}}
    return ClientError(answer, operation)


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "bucket", "prefix"),
        [
            ("s3://catalogue", "catalogue", ""),
            ("s3://catalogue/", "catalogue", ""),
            ("s3://catalogue/music", "catalogue", "music"),
            ("s3://catalogue/music/2026/", "catalogue", "music/2026/"),
            ("s3://catalogue//lead", "catalogue", "/lead"),
            ("s3://Old_Bucket.x/a?b#c%20d", "Old_Bucket.x", "a?b#c%20d"),
        ],
    )
    def test_parts(self, text, bucket, prefix):
        assert S3Uri.parse(text) == S3Uri(bucket, prefix)

    def test_it_reads_as_it_was_written(self):
        assert str(S3Uri.parse("s3://catalogue/music/")) == "s3://catalogue/music/"

    @pytest.mark.parametrize(
        "text", ["", "catalogue/music", "s3:/catalogue", "S3://catalogue", "s3a://catalogue/x", "https://host/x", "/data"]
    )
    def test_no_s3_address(self, text):
        with pytest.raises(ConfigurationError, match="write s3://bucket/prefix"):
            S3Uri.parse(text)

    @pytest.mark.parametrize("text", ["s3://", "s3:///music", "s3://ab", "s3://a b c/x", "s3://" + "a" * 64, "s3://user:pass@bucket/x"])
    def test_no_bucket(self, text):
        with pytest.raises(ConfigurationError, match="no valid bucket"):
            S3Uri.parse(text)

    def test_control_characters(self):
        with pytest.raises(ConfigurationError, match="control characters"):
            S3Uri.parse("s3://catalogue/a\nb")


class TestSettings:
    @pytest.mark.parametrize("url", ["localhost:9000", "ftp://host", "http://", "http://host:port", "http://[::1", ""])
    def test_an_endpoint_is_a_url(self, url):
        with pytest.raises(ConfigurationError, match="is no URL"):
            S3Settings(endpoint_url=url)

    def test_an_endpoint_has_no_password(self):
        with pytest.raises(ConfigurationError) as caught:
            S3Settings(endpoint_url="https://me:the-secret@host")
        assert "the-secret" not in str(caught.value)

    def test_an_own_endpoint_means_paths(self):
        client = s3_client(S3Settings(endpoint_url="http://store.example:9000"))
        assert client.meta.config.s3["addressing_style"] == "path"
        client.close()

    def test_aws_means_hosts(self):
        client = s3_client(S3Settings(region="eu-west-1"))
        assert client.meta.config.s3["addressing_style"] == "auto"
        assert client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
        client.close()

    @pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_the_environment_names_an_endpoint(self, monkeypatch, name):
        monkeypatch.setenv(name, "http://store.example:9000")
        settings = S3Settings().resolved()
        client = s3_client(S3Settings())
        assert settings.endpoint_url == client.meta.endpoint_url == "http://store.example:9000"
        assert client.meta.config.s3["addressing_style"] == "path"
        client.close()

    def test_resolved_on_aws(self, monkeypatch):
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        assert S3Settings().resolved() == S3Settings(region="eu-central-1")

    def test_compatible_stores_and_retries(self):
        client = s3_client(S3Settings(max_attempts=3, max_pool_connections=7))
        config = client.meta.config
        assert config.request_checksum_calculation == config.response_checksum_validation == "when_required"
        assert config.retries["mode"] == "standard"
        assert config.retries["total_max_attempts"] == 3
        assert config.max_pool_connections == 7
        client.close()

    def test_a_missing_profile(self, monkeypatch):
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(ConfigurationError, match="nobody") as caught:
            s3_client(S3Settings())
        assert isinstance(caught.value.__cause__, ProfileNotFound)

    @pytest.mark.net
    def test_loopback_needs_no_proxy(self, client, local_s3, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        direct = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, max_attempts=1))
        assert direct.list_objects_v2(Bucket="catalogue")["KeyCount"] == 1
        direct.close()

    @pytest.mark.net
    def test_anonymous_needs_no_credentials(self, client, local_s3, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        client.put_object_acl(Bucket="catalogue", Key="a.wav", ACL="public-read")
        anonymous = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, anonymous=True, max_attempts=1))
        assert anonymous.get_object(Bucket="catalogue", Key="a.wav")["Body"].read() == b"audio"
        anonymous.close()


@pytest.mark.net
class TestAgainstAServer:
    def test_a_missing_bucket(self, client):
        error = explained(lambda: client.list_objects_v2(Bucket="nowhere"), "listing s3://nowhere/")
        assert type(error) is ConfigurationError
        assert str(error).startswith("listing s3://nowhere/ failed: bucket nowhere does not exist: ")

    def test_head_of_a_missing_bucket_has_no_body_to_tell(self, client):
        error = explained(lambda: client.head_bucket(Bucket="nowhere"))
        assert type(error) is ConfigurationError
        assert "does not exist" in str(error)

    def test_a_missing_bucket_beneath_a_transfer(self, client, tmp_path):
        (tmp_path / "file").write_bytes(b"rows")
        with pytest.raises(S3UploadFailedError) as caught:
            client.upload_file(str(tmp_path / "file"), "nowhere", "key")
        assert "bucket nowhere does not exist" in str(explain(caught.value, "writing results"))

    @pytest.mark.parametrize("operation", ["get_object", "head_object"])
    def test_a_missing_object(self, client, operation):
        assert type(explained(lambda: getattr(client, operation)(Bucket="catalogue", Key="gone.wav"))) is SourceGone

    @pytest.mark.parametrize("operation", ["get_object", "head_object"])
    def test_an_overwritten_object(self, client, operation):
        assert type(explained(lambda: getattr(client, operation)(Bucket="catalogue", Key="a.wav", IfMatch='"old"'))) is SourceChanged

    def test_a_range_beyond_the_end(self, client):
        assert type(explained(lambda: client.get_object(Bucket="catalogue", Key="a.wav", Range="bytes=100-"))) is SourceChanged

    def test_a_write_that_another_writer_won(self, client):
        error = explained(lambda: client.put_object(Bucket="catalogue", Key="a.wav", Body=b"", IfNoneMatch="*"))
        assert type(error) is ResultsNotWritable

    def test_a_parameter_that_botocore_refuses(self, client):
        assert type(explained(lambda: client.list_objects_v2(Bucket="no bucket"))) is ConfigurationError

    def test_no_credentials(self, local_s3, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, **QUICK))
        error = explained(client.list_buckets)
        assert type(error) is CredentialsRefused
        assert "no AWS credentials were found" in str(error)
        client.close()

    def test_a_closed_port(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = s3_client(S3Settings(endpoint_url=url, **QUICK))
        error = explained(lambda: client.head_object(Bucket="catalogue", Key="a.wav"))
        assert type(error) is UnreachableError
        assert f"S3 at {url} did not answer" in str(error)
        client.close()

    def test_tls_where_there_is_none(self, local_s3):
        client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url.replace("http:", "https:"), **QUICK))
        error = explained(client.list_buckets)
        assert type(error) is ConfigurationError
        assert "does not speak TLS" in str(error)
        client.close()

    def test_a_body_that_breaks_off(self):
        with _server_that_breaks_off() as url:
            client = s3_client(S3Settings(endpoint_url=url, **QUICK))
            body = client.get_object(Bucket="catalogue", Key="a.wav")["Body"]
            assert type(explained(body.read)) is UnreachableError
            body.close()
            client.close()


class _server_that_breaks_off:  # noqa: N801 - used as a verb
    """Answers one request with half of what it promises."""

    def __enter__(self) -> str:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._answer)
        self.thread.start()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        self.listener.close()


class TestAnswers:
    @pytest.mark.parametrize(
        ("error", "kind", "words"),
        [
            (answered("AccessDenied", 403), AccessDeniedError, "allow these credentials s3:GetObject,"),
            (answered("AccessDenied", 403, "ListObjectsV2"), AccessDeniedError, "s3:ListBucket,"),
            (answered("AccessDenied", 403, "UploadPart"), AccessDeniedError, "s3:PutObject,"),
            (answered("AccessDenied", 403, "DeleteObjects"), AccessDeniedError, "s3:DeleteObject,"),
            (answered("403", 403, "HeadObject"), AccessDeniedError, "s3:GetObject,"),
            (answered("403", 403, "HeadBucket"), AccessDeniedError, "s3:ListBucket,"),
            (answered("InvalidAccessKeyId", 403), CredentialsRefused, "does not know this access key id"),
            (answered("SignatureDoesNotMatch", 403), CredentialsRefused, "the secret does not belong"),
            pytest.param(answered("ExpiredToken", 400), CredentialsRefused, "log in again", marks=pytest.mark.fault(74)),
            pytest.param(answered("RequestTimeTooSkewed", 403), ConfigurationError, "clock", marks=pytest.mark.fault(56)),
            pytest.param(
                answered("AccessDenied", 403, message=KMS), AccessDeniedError, "kms:Decrypt on the key", marks=pytest.mark.fault(73)
            ),
            pytest.param(answered("KMS.DisabledException", 400), ConfigurationError, "the KMS key", marks=pytest.mark.fault(73)),
            pytest.param(answered("KMS.ThrottlingException", 400), UnreachableError, "fewer requests", marks=pytest.mark.fault(73)),
            (answered("InvalidObjectState", 403), SourceArchived, "archived"),
            (answered("NoSuchVersion", 404), SourceGone, "no such object"),
            (answered("SomethingNew", 404), SourceGone, "no such object"),
            (answered("404", 404, "HeadBucket"), ConfigurationError, "the bucket does not exist"),
            (answered("301", 301, "HeadBucket", headers={"x-amz-bucket-region": "eu-west-3"}), ConfigurationError, "region to eu-west-3"),
            (answered("AuthorizationHeaderMalformed", 400), ConfigurationError, "region to the bucket's own"),
            (answered("SlowDown", 503), UnreachableError, "HTTP 503 SlowDown"),
            (answered("Whatever", 502), UnreachableError, "HTTP 502 Whatever"),
            (answered("XStorageFull", 507, "PutObject"), ResultsNotWritable, "make room"),
            (answered("Teapot", 418, message="short\nand stout."), ConfigurationError, "HTTP 418 Teapot short and stout: check"),
        ],
    )
    def test_meaning(self, error, kind, words):
        found = explain(error, DOING)
        assert type(found) is kind
        assert str(found).startswith(f"{DOING} failed: ")
        assert words in str(found)

    def test_an_answer_without_anything(self):
        assert type(explain(ClientError({}, "GetObject"), DOING)) is ConfigurationError


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("error", "kind", "words"),
        [
            (NoCredentialsError(), CredentialsRefused, "AWS_PROFILE"),
            (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), CredentialsRefused, "could not be had"),
            (ProfileNotFound(profile="nobody"), ConfigurationError, "nobody"),
            (EndpointConnectionError(endpoint_url="http://host:1/b/k?X=1"), UnreachableError, "S3 at http://host:1 did not answer"),
            (ConnectTimeoutError(endpoint_url="http://host:1/"), UnreachableError, "ConnectTimeoutError"),
            (ReadTimeoutError(endpoint_url="http://host:1/"), UnreachableError, "ReadTimeoutError"),
            (IncompleteReadError(actual_bytes=1, expected_bytes=2), UnreachableError, "before the last byte"),
            (ConnectionResetError(104, "reset"), UnreachableError, "S3 did not answer (ConnectionResetError)"),
            (
                SSLError(endpoint_url="https://h", error=ssl.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]")),
                ConfigurationError,
                "AWS_CA_BUNDLE",
            ),
            (SSLError(endpoint_url="https://h", error=ssl.SSLError("EOF occurred")), UnreachableError, "S3 at https://h did not answer"),
            (FlexibleChecksumError(error_msg="wrong"), SourceError, "checksum"),
        ],
    )
    def test_meaning(self, error, kind, words):
        found = explain(error, DOING)
        assert type(found) is kind
        assert words in str(found)

    def test_what_is_explained_already(self):
        error = SourceGone("gone")
        assert explain(error, DOING) is error


@pytest.mark.parametrize(
    "error",
    [
        answered("Odd", 400, message="AKIAABCDEFGHIJKLMNOP may not; see https://me:the-secret@host/k?X-Amz-Signature=the-secret&x=1"),
        answered("Odd", 400, message="X-Amz-Security-Token=the-secret AWSAccessKeyId=ASIAABCDEFGHIJKLMNOP"),
        EndpointConnectionError(endpoint_url="https://me:the-secret@host/k?X-Amz-Signature=the-secret"),
        ValueError("Invalid endpoint: https://me:the-secret@host"),
    ],
)
def test_no_sentence_has_credentials(error):
    said = str(explain(error, DOING))
    assert "the-secret" not in said
    assert "ABCDEFGHIJKLMNOP" not in said


def test_a_sentence_ends():
    assert len(str(explain(answered("Odd", 400, message="x" * 9999), DOING))) < 500


class TestDates:
    @given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
    def test_a_date_is_the_same_however_it_is_written(self, date):
        for text in (format_datetime(date, usegmt=True), f"{date:%Y-%m-%dT%H:%M:%S.000Z}", str(int(date.timestamp()))):
            assert read_date(text) == parse_timestamp(text) == date.replace(microsecond=0)

    @pytest.mark.parametrize("text", ["22 Nov 2026 14:00:01", "22 Nov 2026 14:00:01 -0000", "2026-11-22", "20261122T140001Z", 1795356001])
    def test_what_is_no_date_of_a_header_is_read_as_botocore_does(self, text):
        assert (read_date(text), read_date(text).tzinfo) == (parse_timestamp(text), parse_timestamp(text).tzinfo)

    def test_no_date(self):
        with pytest.raises(ValueError, match="yesterday"):
            read_date("yesterday")

    def test_a_client_reads_dates_so(self, client):
        assert client.get_object(Bucket="catalogue", Key="a.wav")["LastModified"].tzinfo is UTC
