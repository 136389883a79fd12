"""LocalS3 over real sockets: it serves, it forgets, and it leaves nothing behind."""

import gc
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client
from moderation.errors import ConfigurationError

pytestmark = pytest.mark.net


@pytest.fixture
def local_s3():
    with LocalS3() as server:
        yield server


@pytest.fixture
def client(local_s3, monkeypatch):
    for name, value in local_s3.environment().items():
        monkeypatch.setenv(name, value)
    client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url))
    yield client
    client.close()


def put_one(client) -> None:
    client.create_bucket(Bucket="catalogue")
    client.put_object(Bucket="catalogue", Key="calls/a b+ü.pcm", Body=b"audio", Metadata={"sample-rate": "8000"})


def test_it_keeps_an_object_and_its_metadata(client):
    put_one(client)
    answer = client.get_object(Bucket="catalogue", Key="calls/a b+ü.pcm")
    assert answer["Body"].read() == b"audio"
    assert answer["Metadata"] == {"sample-rate": "8000"}


def test_it_serves_many_at_once(client):
    put_one(client)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get_object(Bucket="catalogue", Key="calls/a b+ü.pcm")["Body"].read(), range(40)))
    assert answers == [b"audio"] * 40


def test_it_says_nothing(client, capfd):
    put_one(client)
    client.list_objects_v2(Bucket="catalogue")
    assert capfd.readouterr() == ("", "")


def test_it_starts_empty(client):
    put_one(client)
    with LocalS3() as another:
        other = boto3.client("s3", endpoint_url=another.endpoint_url)
        assert other.list_buckets()["Buckets"] == []
        other.close()


def test_its_environment_outranks_what_was_there(local_s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-real")
    for name, value in local_s3.environment().items():
        monkeypatch.setenv(name, value)
    session = boto3.session.Session()
    client = session.client("s3")
    assert client.meta.endpoint_url == local_s3.endpoint_url
    assert not session.get_credentials().token
    client.close()


def test_it_stops_while_connections_are_open(monkeypatch):
    before = set(threading.enumerate())
    with LocalS3() as server:
        port = int(server.endpoint_url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        idle[0].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle[0].recv(4096).startswith(b"HTTP/1.1 200")
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for connection in idle:
        connection.close()
    gc.collect()  # an unclosed socket of the server would warn here, and warnings are errors


def test_it_can_be_entered_again():
    server = LocalS3()
    with server:
        first = server.endpoint_url
    with server:
        assert server.endpoint_url.startswith("http://127.0.0.1:")
        assert first


def test_without_moto(monkeypatch):
    monkeypatch.setitem(sys.modules, "moto.moto_server.werkzeug_app", None)
    with pytest.raises(ConfigurationError, match="install soundcheck with its `local` extra"), LocalS3():
        pass
