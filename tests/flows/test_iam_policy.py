"""The IAM policy allows what scans, verify and compact do, and nothing that they do not."""

import asyncio
import json
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from connectors.lake.store import open_store
from connectors.s3 import S3Settings, S3Uri, policy, s3_client
from flows.cli import run
from flows.doctor import examine
from flows.maintenance import compact_results, verify_results
from flows.wiring import now
from moderation.errors import AccessDeniedError, ResultsNotWritable
from moderation.outcomes import ExitCode
from s3_guard import Guard, matches
from tasks.decide import STARTER

RESULTS = "s3://moderation/velma"
MIB = 1024 * 1024


def printed(capsys, *flags):
    assert run(["iam-policy", *flags]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def guarded(aws, s3_server, monkeypatch):
    """Puts a policy before the local S3, which has a bucket for results, too."""
    client = s3_client(S3Settings())
    client.create_bucket(Bucket="moderation")
    app = s3_server._server.app

    def guard(document):
        guarding = Guard(app, document)
        monkeypatch.setattr(s3_server._server, "app", guarding)
        return guarding

    yield guard
    monkeypatch.setattr(s3_server._server, "app", app)
    for entry in client.list_objects_v2(Bucket="moderation").get("Contents", []):
        client.delete_object(Bucket="moderation", Key=entry["Key"])
    client.delete_bucket(Bucket="moderation")
    client.close()


@pytest.mark.torture
async def test_what_it_allows_is_enough_and_all_of_it_is_used(world, make_wav, guarded, capsys, tmp_path):
    for number in range(3):
        world.put(f"2026/{number}.wav", make_wav(1.0))
    world.put("2026/raw.pcm", bytes(32_000))
    world.put("2026/raw.pcm.json", json.dumps({"audio_format": "s16le", "sample_rate": 16_000, "num_channels": 1}).encode())
    world.put("2025/other.wav", make_wav(1.0))
    guard = guarded(printed(capsys, "--catalogue", "s3://catalogue/2026/", "--results", RESULTS))
    settings = world.settings.model_copy(update={"results": RESULTS, "state_dir": tmp_path / "state", "endpoints": ["music"]})
    found = {finding.subject: finding for finding in await examine(settings, "s3://catalogue/2026/")}
    assert found["results"].well, found["results"].detail
    assert found["catalogue s3://catalogue/2026/"].well
    for done in (4, 5):  # the second one reads what the first has left
        report = await world.scan("2026/", results=RESULTS, state_dir=tmp_path / "state", endpoints=["music"])
        assert (report.exit_code, report.counts()["done"]) == (ExitCode.OK, done)
        with guard.suspended():
            world.put("2026/later.wav", make_wav(2.0))
    assert compact_results(settings, now, (now() + timedelta(days=1)).date()).done.deleted > 0
    assert verify_results(settings, now).exit_code is ExitCode.OK
    store = open_store(RESULTS)
    with store.writing("_large") as file:
        file.write(bytes(9 * MIB))
    store.delete("_large")
    guard.policy["Statement"] = [without(each, "s3:DeleteObject") for each in guard.policy["Statement"]]
    with pytest.raises(ResultsNotWritable, match="s3:DeleteObject"):
        store.check_writable()
    assert [action for action, _ in guard.denied] == ["s3:DeleteObject"]
    allowed = {action for each in policy([S3Uri("catalogue")], S3Uri("moderation"))["Statement"] for action in each["Action"]}
    assert allowed - guard.used == {"s3:AbortMultipartUpload"}, "ends an upload that breaks off, as the next test shows"


@pytest.mark.torture
async def test_what_else_reads_and_writes_results_needs_no_more_than_scans(world, make_wav, guarded, capsys, tmp_path, monkeypatch):
    for number in range(3):
        world.put(f"2026/{number}.wav", make_wav(1.0, 200.0 + number))
    world.put("2026/bad.flac", b"fLaC" + bytes(range(256)) * 8)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "RESULTS": RESULTS,
        "STATE_DIR": str(tmp_path / "state"),
        "POLICY": str(STARTER),
        "API_KEY": world.settings.api_key.get_secret_value(),
        "VELMA_URL": world.velma.url,
        "ENDPOINTS": '["music"]',
        "SPOOL": "results",
    }.items():
        monkeypatch.setenv(f"SOUNDCHECK_{name}", value)
    guard = guarded(printed(capsys, "--catalogue", "s3://catalogue/2026/", "--results", RESULTS))

    async def ends_with(code, *words):
        found = await asyncio.to_thread(run, [*words, "--json"])
        told = capsys.readouterr()
        assert (found, guard.denied) == (code, []), (words, told.out, told.err)
        return json.loads(told.out)

    scan = ("scan", "s3://catalogue/2026/", "--direct")
    assert (await ends_with(ExitCode.QUARANTINED, *scan))["decisions"]
    await ends_with(ExitCode.OK, "decide")
    await ends_with(ExitCode.OK, "reconcile")
    await ends_with(ExitCode.OK, "report")
    await ends_with(ExitCode.OK, "overdue", "s3://catalogue/2026/")
    await ends_with(ExitCode.OK, "review", "export", str(tmp_path / "queue.csv"))
    await ends_with(ExitCode.OK, "compact", "--before", f"{now() + timedelta(days=1):%Y-%m-%d}")
    erased = await ends_with(ExitCode.OK, "erase", "s3://catalogue/2026/1.wav", "--reason", "request 4711")
    assert erased["lakes"][0]["datasets"]["music_summaries"] == 1
    await ends_with(ExitCode.OK, "reconcile")
    await ends_with(ExitCode.OK, "verify")
    await ends_with(ExitCode.OK, "ledger", "rebuild", "--replace")
    await ends_with(ExitCode.OK, "quarantine", "release", "--all", "--reason", "to be tried again")
    await ends_with(ExitCode.QUARANTINED, *scan)


def without(statement, action):
    return statement | {"Action": [each for each in statement["Action"] if each != action]}


def test_an_upload_that_breaks_off_is_ended(guarded):
    guard = guarded(policy([], S3Uri("moderation", "velma/v1/")))
    allows = guard.allows
    parts = []

    def refuse_a_part(action, bucket, key, prefix):
        parts.append(action)
        return allows(action, bucket, key, prefix) and parts.count("s3:PutObject") < 3

    guard.allows = refuse_a_part
    with pytest.raises(ResultsNotWritable), open_store(RESULTS).writing("_large") as file:
        file.write(bytes(17 * MIB))
    guard.allows = allows
    assert "s3:AbortMultipartUpload" in parts


@pytest.mark.parametrize(
    "request_of",
    [
        lambda client: client.get_object(Bucket="catalogue", Key="2025/other.wav"),
        lambda client: client.list_objects_v2(Bucket="catalogue", Prefix="2025/"),
        lambda client: client.list_objects_v2(Bucket="catalogue", Prefix=""),
        lambda client: client.put_object(Bucket="catalogue", Key="2026/mine.wav", Body=b""),
        lambda client: client.delete_object(Bucket="catalogue", Key="2026/one.wav"),
        lambda client: client.get_object(Bucket="catalogue", Key="2026/one.wav", VersionId="null"),
        lambda client: client.put_object(Bucket="moderation", Key="elsewhere/mine", Body=b""),
        lambda client: client.create_bucket(Bucket="another"),
    ],
)
def test_everything_else_is_denied(guarded, aws, request_of):
    aws("2026/one.wav", b"RIFF")
    aws("2025/other.wav", b"RIFF")
    guarded(policy([S3Uri("catalogue", "2026/")], S3Uri("moderation", "velma/v1/")))
    client = s3_client(S3Settings())
    assert client.get_object(Bucket="catalogue", Key="2026/one.wav")["Body"].read() == b"RIFF"
    with pytest.raises(ClientError, match="AccessDenied"):
        request_of(client)
    client.close()


def test_without_leave_to_list_an_absent_object_would_be_a_denied_one(guarded):
    document = policy([], S3Uri("moderation", "velma/v1/"))
    guarded(document)
    assert open_store(RESULTS).get("absent") is None
    [listing] = [each for each in document["Statement"] if "Condition" in each]
    listing["Condition"] = {"StringLike": listing["Condition"].pop("StringLikeIfExists")}
    with pytest.raises(AccessDeniedError):
        open_store(RESULTS).get("absent")


def test_signs_of_a_prefix_are_no_wildcards():
    [listing, reading] = policy([S3Uri("catalogue", "a*b?[c]${d}/")], None)["Statement"]
    [resource] = reading["Resource"]
    assert matches(resource, "arn:aws:s3:::catalogue/a*b?[c]${d}/one.wav")
    assert not matches(resource, "arn:aws:s3:::catalogue/aXb?[c]${d}/one.wav")
    assert not matches(resource, "arn:aws:s3:::catalogue/a*bX[c]${d}/one.wav")
    assert listing["Condition"]["StringLikeIfExists"]["s3:prefix"][0].endswith("/*")


def test_settings_say_what_flags_leave_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text(
        'results = "s3://moderation/velma"\n[organisations.acme]\napi_key_env = "ACME"\nroots = ["s3://acme-uploads/"]\n'
    )
    resources = [each["Resource"][0] for each in printed(capsys, "--versions", "--partition", "aws-cn")["Statement"]]
    assert resources == [
        "arn:aws-cn:s3:::acme-uploads",
        "arn:aws-cn:s3:::acme-uploads/*",
        "arn:aws-cn:s3:::moderation",
        "arn:aws-cn:s3:::moderation/velma/v1/*",
    ]
    (tmp_path / "soundcheck.toml").write_text("")
    assert run(["iam-policy"]) == ExitCode.CONFIGURATION
    assert "--catalogue" in capsys.readouterr().err
