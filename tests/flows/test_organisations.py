"""Several organisations in one installation: each streams with its own key, under its own limits and budgets, inside its own roots."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from canary import everything_logged, surfaces
from connectors.lake.query import connect
from connectors.ledger import Ledger
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation as ServedOrganisation
from connectors.local_velma.server import LocalVelma, local_velma
from connectors.s3 import S3Uri
from flows.cli import run
from flows.doctor import Finding, examine, worst
from flows.keys import load_key
from flows.launch import scan_directly
from flows.organisation import Organisation
from flows.report import Report
from flows.request import Request
from flows.run_settings import check_source, organisation_of, run_settings
from flows.settings import Settings, fixed_settings, load_settings
from flows.watch import Watch
from flows.wiring import velma_client, wired
from moderation.breaker import BreakerState
from moderation.budget import month_of
from moderation.errors import AccessDeniedError, ConfigurationError
from moderation.outcomes import ExitCode
from moderation.usage import Usage

BUCKET = "catalogue"
ACME_KEY, GLOBEX_KEY = "canary-acme-5f0e9d1c7b", "canary-globex-83aa41d0ee"
ACME, GLOBEX = 1, 2
"""The numbers of their keys in the server's journal."""
TABLES = """
[organisations.acme]
api_key_env = "ACME_KEY"
roots = ["s3://catalogue/acme"]
connections = 3
endpoint_hours = {music = 1.5}

[organisations.globex]
api_key_file = "globex.key"
roots = ["s3://catalogue/globex/", "s3://archive"]
monthly_hours = 2.0
endpoint_connections = {ai_music = 1}
currency = "EUR"
monthly_cost = 5
prices = {music = 0.25, ai_music = 0.5}
"""


@dataclass
class Both:
    """Two organisations of one local server, in one lake and one ledger, as a soundcheck.toml has them."""

    velma: LocalVelma
    folder: Path
    put: Callable[..., None]

    def settings(self, org: str) -> Settings:
        return load_settings(org=org)

    async def scan(self, org: str, prefix: str | None = None) -> Report:
        return await scan_directly(self.settings(org), f"s3://{BUCKET}/{f'{org}/' if prefix is None else prefix}", Watch())

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with connect(str(self.folder / "results")) as lake:
            return lake.execute(query).fetchall()

    def events(self, kind: str) -> list[dict[str, object]]:
        lines = map(json.loads, (self.folder / "journal.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == kind]

    async def usages(self, org: str) -> dict[str, Usage]:
        async with Ledger.open(self.folder / "results" / "_state" / "ledger.db") as ledger:
            return {usage.endpoint: usage for usage in await ledger.usage(org, month_of(datetime.now(UTC)))}


def placed(folder: Path, monkeypatch: pytest.MonkeyPatch, top: str = "") -> None:
    """The working directory of an installation with two organisations and their keys."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACME_KEY", ACME_KEY)
    (folder / "globex.key").write_text(f"{GLOBEX_KEY}\n")
    (folder / "soundcheck.toml").write_text(top + TABLES)


@pytest.fixture
async def both(aws: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    with Journal(tmp_path / "journal.jsonl") as journal:
        served = ServedOrganisation([ACME_KEY, GLOBEX_KEY])
        async with local_velma(served, journal=journal, detector="stub") as velma:
            top = f'results = "results"\nvelma_url = "{velma.url}"\nconnections = 2\nbreaker = {{pause_factor = 0}}\n'
            placed(tmp_path, monkeypatch, top)
            yield Both(velma, tmp_path, aws)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    money = 'currency = "USD"\nmonthly_cost = 9\nprices = {music = 1, ai_music = 2}\n'
    placed(tmp_path, monkeypatch, money + "endpoint_connections = {music = 6}\n")
    return tmp_path


async def test_each_stands_under_its_own_name_alone(both, make_wav):
    for key, frames in (("acme/one.wav", 20), ("acme/two.wav", 40), ("globex/three.wav", 10)):
        both.put(key, make_wav(0.192 * frames))
    acme, globex = await asyncio.gather(both.scan("acme"), both.scan("globex"))
    assert (acme.exit_code, acme.progress.sessions) == (ExitCode.OK, 4)
    assert (globex.exit_code, globex.progress.sessions) == (ExitCode.OK, 2)
    assert Counter(event["key"] for event in both.events("connect")) == {ACME: 4, GLOBEX: 2}
    assert both.events("refused") == []
    assert both.ask("SELECT org, count(*) FROM attempts GROUP BY org ORDER BY org") == [("acme", 4), ("globex", 2)]
    assert both.ask("SELECT org, key FROM music_latest ORDER BY key") == [
        ("acme", "acme/one.wav"),
        ("acme", "acme/two.wav"),
        ("globex", "globex/three.wav"),
    ]
    assert both.ask("SELECT org, done FROM runs_latest ORDER BY org") == [("acme", 2), ("globex", 1)]

    ours, theirs = await both.usages("acme"), await both.usages("globex")
    assert {name: usage.settled_ms for name, usage in ours.items()} == {"*": 23_040, "music": 11_520, "ai_music": 11_520}
    assert {name: usage.settled_ms for name, usage in theirs.items()} == {"*": 3_840, "music": 1_920, "ai_music": 1_920}
    assert {name: usage.gate.ceiling for name, usage in ours.items()} == {"*": None, "music": 3, "ai_music": 3}
    assert {name: usage.gate.ceiling for name, usage in theirs.items()} == {"*": None, "music": 2, "ai_music": 1}
    assert {name: usage.gate.cap_ms for name, usage in ours.items()} == {"*": None, "music": 5_400_000, "ai_music": None}
    assert {name: usage.gate.cap_ms for name, usage in theirs.items()} == {"*": 7_200_000, "music": None, "ai_music": None}
    assert {name: usage.gate.price_micros for name, usage in ours.items()} == {"*": None, "music": None, "ai_music": None}
    assert {name: usage.gate.price_micros for name, usage in theirs.items()} == {"*": None, "music": 250_000, "ai_music": 500_000}
    assert (ours["*"].gate.cap_micros, theirs["*"].gate.cap_micros) == (None, 5_000_000)


@pytest.mark.torture
async def test_what_closes_one_leaves_the_other_open_and_shows_neither_key(both, make_wav, caplog):
    both.put("acme/one.wav", make_wav(2.0))
    both.put("globex/two.wav", make_wav(3.0))
    both.velma.organisation.revoke_key(ACME_KEY)
    with everything_logged(caplog):
        refused = await both.scan("acme")
        assert (refused.state, refused.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert both.events("connect") == [], "the other key would have been let in"
        assert (await both.usages("acme"))["*"].settled_ms == 0
        assert await both.usages("globex") == {}

        assert (await both.scan("globex")).exit_code is ExitCode.OK
        assert {event["key"] for event in both.events("connect")} == {GLOBEX}
        ours, theirs = await both.usages("acme"), await both.usages("globex")
        assert BreakerState.OPEN in {usage.gate.breaker.state for usage in ours.values()}
        assert {usage.gate.breaker.state for usage in theirs.values()} == {BreakerState.CLOSED}
    files = {path.name: path.read_bytes() for path in both.folder.rglob("*") if path.is_file() and path.name != "globex.key"}
    assert "ledger.db" in files
    for key in (ACME_KEY, GLOBEX_KEY):
        assert key not in caplog.text
        assert [name for name, content in files.items() if key.encode() in content] == []


async def test_a_cap_in_money_ends_its_own_organisation_alone(both, make_wav):
    both.put("acme/one.wav", make_wav(2.0))
    both.put("globex/two.wav", make_wav(3.0))
    toml = both.folder / "soundcheck.toml"
    toml.write_text(toml.read_text().replace("monthly_cost = 5", "monthly_cost = 0.000001"))
    stopped = await both.scan("globex")
    assert (stopped.state, stopped.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
    assert both.events("connect") == []
    assert (await both.scan("acme")).exit_code is ExitCode.OK


async def test_a_source_that_is_not_ones_own_starts_nothing(both, make_wav):
    for key in ("acme/one.wav", "acme2/two.wav", "globex/three.wav"):
        both.put(key, make_wav(1.0))
    for source in ("globex/", "acme2/", "acme", ""):
        with pytest.raises(ConfigurationError, match="outside the roots of organisation acme") as raised:
            await both.scan("acme", source)
        assert raised.value.exit_code is ExitCode.CONFIGURATION
    assert (both.folder / "journal.jsonl").read_text() == ""
    assert not (both.folder / "results").exists()


async def test_no_text_of_settings_or_errors_shows_a_key(installation):
    shown = []
    for org, prefix in (("acme", "globex/"), ("nobody", "acme/")):
        with pytest.raises(ConfigurationError) as raised:
            run_settings(load_settings(org=org), [f"s3://catalogue/{prefix}"])
        shown += surfaces(raised.value).values()
    for org in ("acme", "globex"):
        settings = organisation_of(load_settings(org=org))
        shown += [repr(settings), str(settings), settings.model_dump_json(), repr(velma_client(settings, await load_key(settings)))]
    for key in (ACME_KEY, GLOBEX_KEY):
        assert [text for text in shown if key in text] == []


async def test_a_run_has_nothing_of_the_others(installation, monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_API_KEY", "canary-of-nobody-0")
    (installation / "globex.key").unlink()
    async with wired(load_settings(org="acme", results="results"), Request(("s3://catalogue/acme/",))) as parts:
        said = repr(parts.settings)
    assert "globex" not in said
    assert parts.settings.api_key is None
    assert parts.settings.organisations == {}


async def test_what_an_organisation_leaves_out_is_as_at_the_top(installation):
    acme, globex = (organisation_of(load_settings(org=org)) for org in ("acme", "globex"))
    assert (acme.org, acme.connections, acme.monthly_hours, acme.currency, acme.monthly_cost) == ("acme", 3, None, "USD", 9)
    assert (globex.org, globex.connections, globex.monthly_hours, globex.currency, globex.monthly_cost) == ("globex", 4, 2.0, "EUR", 5)
    assert (await load_key(acme)).reveal() == ACME_KEY
    assert (await load_key(globex)).reveal() == GLOBEX_KEY


@pytest.mark.parametrize(
    ("top", "own", "left"),
    [
        ({"connections": 4, "endpoint_connections": {"music": 6}}, {"connections": 2}, {"endpoint_connections": {}}),
        ({"hosts": {"music": "wss://one.example"}}, {"velma_url": "wss://two.example"}, {"hosts": {}}),
        (
            {"currency": "USD", "monthly_cost": 9, "endpoint_costs": {"music": 1}, "prices": {"music": 1, "ai_music": 1}},
            {"currency": "EUR"},
            {"prices": {}, "monthly_cost": None, "endpoint_costs": {}},
        ),
        ({"roots": ["s3://catalogue/"], "api_key": ACME_KEY}, {}, {"roots": [], "api_key": None}),
    ],
)
def test_details_of_something_else_are_not_taken_over(top, own, left):
    settings = fixed_settings(**top, org="acme", organisations={"acme": {"api_key_env": "ACME_KEY"} | own})
    resolved = organisation_of(settings)
    assert {name: getattr(resolved, name) for name in left} == left
    assert {name: getattr(resolved, name) for name in own} == own


def test_a_flag_counts_for_the_organisation_that_is_named(installation):
    settings = organisation_of(load_settings(org="globex", connections=1, monthly_hours=0.5, results="elsewhere"))
    assert (settings.connections, settings.endpoint_connections, settings.monthly_hours) == (1, {}, 0.5)
    assert settings.results == "elsewhere"


def test_no_flag_gives_an_organisation_a_key_or_roots(installation):
    settings = organisation_of(load_settings(org="acme", api_key_file="globex.key", roots=["s3://catalogue/globex/"]))
    assert (settings.api_key_file, settings.api_key_env, settings.roots) == (None, "ACME_KEY", ["s3://catalogue/acme/"])


def test_the_environment_reaches_into_an_organisation(installation, monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_ORGANISATIONS__ACME__MONTHLY_HOURS", "7")
    settings = organisation_of(load_settings(org="acme"))
    assert (settings.monthly_hours, settings.connections) == (7.0, 3)


def test_all_organisations_share_a_ledger(tmp_path):
    organisations = {name: {"api_key_env": "KEY", "results": str(tmp_path / name)} for name in ("acme", "globex")}
    settings = fixed_settings(org="acme", results=str(tmp_path / "all"), organisations=organisations)
    assert {settings.of(name).state_folder() for name in organisations} == {tmp_path / "all" / "_state"}
    assert {settings.of(name).results for name in organisations} == {str(tmp_path / name) for name in organisations}


@pytest.mark.parametrize(
    ("org", "said"),
    [(None, "which organisation?.*--org.*acme, globex"), ("acmee", "no organisation 'acmee': the settings have acme, globex")],
)
def test_a_run_names_one_of_them(installation, org, said):
    with pytest.raises(ConfigurationError, match=said) as raised:
        run_settings(load_settings(org=org), ["s3://catalogue/acme/"])
    assert raised.value.exit_code is ExitCode.CONFIGURATION


def test_the_name_may_also_stand_in_the_settings(installation, monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_ORG", "globex")
    assert run_settings(load_settings(), ["s3://archive/2026/"]).org == "globex"


def test_without_a_key_of_its_own_an_organisation_has_none(installation, monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_API_KEY", ACME_KEY)
    with (installation / "soundcheck.toml").open("a") as file:
        file.write("[organisations.hooli]\n")
    with pytest.raises(AccessDeniedError, match=r"hooli has no API key.*api_key_env in \[organisations.hooli\]") as raised:
        organisation_of(load_settings(org="hooli"))
    assert ACME_KEY not in str(raised.value)


async def test_a_key_variable_may_be_in_dotenv_and_have_any_name(installation, monkeypatch):
    monkeypatch.delenv("ACME_KEY")
    with pytest.raises(AccessDeniedError, match="ACME_KEY, which api_key_env names"):
        await load_key(organisation_of(load_settings(org="acme")))
    (installation / ".env").write_text(f"ACME_KEY={ACME_KEY}\n")
    assert (await load_key(organisation_of(load_settings(org="acme")))).reveal() == ACME_KEY
    monkeypatch.setenv("SOUNDCHECK_ORGANISATIONS__ACME__API_KEY_ENV", "SOUNDCHECK_KEY_OF_ACME")
    monkeypatch.setenv("SOUNDCHECK_KEY_OF_ACME", GLOBEX_KEY)
    assert (await load_key(organisation_of(load_settings(org="acme")))).reveal() == GLOBEX_KEY


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f'api_key = "{ACME_KEY}"', "organisations.acme: .*a key itself is not kept here"),
        (f'api_key_env = "{ACME_KEY}"', "organisations.acme.api_key_env: "),
        ('api_key_env = "A"\napi_key_file = "b"', "organisation acme has its key in two places: api_key_file, api_key_env"),
        ("conections = 3", "organisations.acme.conections: "),
        ('roots = ["catalogue/acme"]', "organisations.acme.roots.0: "),
        ("endpoint_costs = {music = 3}", "organisation acme: .*set prices for music"),
        ("prices = {music = 3}", "organisation acme: prices are in no currency"),
        ("prices = {musik = 3}", "unknown endpoint 'musik'"),
    ],
)
def test_what_is_wrong_with_an_organisation_is_named(tmp_path, monkeypatch, table, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text(f"[organisations.acme]\n{table}\n")
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings()
    assert ACME_KEY not in str(raised.value)


def test_a_name_is_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text('[organisations."*"]\napi_key_env = "A"\n')
    with pytest.raises(ConfigurationError, match=r"setting organisations\.\*"):
        load_settings()


def test_every_setting_of_an_organisation_is_one_at_the_top():
    assert set(Organisation.model_fields) <= set(Settings.model_fields)


ROOTS = {
    "acme": ["s3://bkt/acme", "s3://bkt/shared/x/", "s3://nest"],
    "globex": ["s3://bkt/globex/", "s3://whole"],
    "inner": ["s3://nest/inner/"],
    "free": [],
}


@pytest.mark.parametrize(
    ("org", "source"),
    [
        ("acme", "s3://bkt/acme/"),
        ("acme", "s3://bkt/acme/2026/11"),
        ("acme", "s3://bkt/shared/x/y"),
        ("acme", "s3://nest/outer/"),
        ("inner", "s3://nest/inner/x"),
        ("globex", "s3://whole"),
        ("globex", "s3://whole/any/where"),
        ("free", "s3://bkt/acme2/"),
        ("free", "s3://other"),
    ],
)
def test_a_source_inside_ones_own_roots_is_taken(org, source):
    check_source(several(org), S3Uri.parse(source))


@pytest.mark.parametrize(
    ("org", "source", "said"),
    [
        ("acme", "s3://bkt/acme", "it also covers its neighbours, s3://bkt/acme/ does not"),
        ("acme", "s3://bkt/acme2/x", "outside"),
        ("acme", "s3://bkt/ac", "outside"),
        ("acme", "s3://bkt", "outside"),
        ("acme", "s3://bkt/shared/", "outside"),
        ("acme", "s3://bkt2/acme/", "outside"),
        ("acme", "s3://BKT/acme/", "outside"),
        ("acme", "s3://bkt/ACME/", "outside"),
        ("acme", "s3://bkt//acme/", "outside"),
        ("acme", "s3://nest/", "reaches into, s3://nest/inner/ of organisation inner"),
        ("acme", "s3://nest/inner/x", "s3://nest/inner/ of organisation inner"),
        ("inner", "s3://nest/outer/", "outside"),
        ("free", "s3://bkt/acme/x", "reaches into, s3://bkt/acme/ of organisation acme"),
        ("free", "s3://bkt/acme", "reaches into"),
        ("free", "s3://bkt/ac", "reaches into"),
        ("free", "s3://bkt/", "reaches into"),
        ("free", "s3://whole/x", "s3://whole/ of organisation globex"),
    ],
)
def test_a_source_that_is_not_all_ones_own_is_refused(org, source, said):
    with pytest.raises(ConfigurationError, match=said):
        check_source(several(org), S3Uri.parse(source))


def several(org: str) -> Settings:
    return fixed_settings(org=org, organisations={name: {"api_key_env": "KEY", "roots": roots} for name, roots in ROOTS.items()})


def test_the_roots_of_a_single_organisation_hold_too():
    settings = fixed_settings(roots=["s3://catalogue/mine"])
    check_source(settings, S3Uri.parse("s3://catalogue/mine/x"))
    with pytest.raises(ConfigurationError, match="outside the roots of organisation default"):
        check_source(settings, S3Uri.parse("s3://catalogue/other/x"))


async def test_doctor_looks_at_the_key_and_the_roots_of_the_one_that_is_named(aws, installation, make_wav, s3_server):
    aws("acme/one.wav", make_wav(1.0))
    url = s3_server.environment()["AWS_ENDPOINT_URL"].replace("http", "ws")  # somebody who listens: nothing is said there
    ours = await findings(load_settings(org="acme", velma_url=url, results="results"))
    assert ours["API key"].well
    assert ours["catalogue s3://catalogue/acme/"].well
    assert worst(list(ours.values())) is ExitCode.OK, ours
    theirs = await findings(load_settings(org="globex", velma_url=url, results="results"))
    assert not theirs["catalogue s3://catalogue/globex/"].well
    assert not theirs["catalogue s3://archive/"].well
    foreign = await findings(load_settings(org="acme", velma_url=url, results="results"), "s3://catalogue/globex/")
    assert "outside the roots" in foreign["catalogue s3://catalogue/globex/"].detail
    assert list(await findings(load_settings())) == ["organisation"]


async def findings(settings: Settings, source: str | None = None) -> dict[str, Finding]:
    return {finding.subject: finding for finding in await examine(settings, source)}


@pytest.mark.parametrize("command", ["scan", "doctor"])
def test_the_command_line_takes_the_name(installation, capsys, command):
    assert run([command, "s3://catalogue/acme/", "--org", "nobody"]) == ExitCode.CONFIGURATION
    out, err = capsys.readouterr()
    assert "acme, globex" in " ".join((out + err).split())


def test_help_shows_how_an_organisation_is_named(capsys):
    run(["scan", "--help"])
    assert "soundcheck scan s3://acme-uploads/2026/ --org acme" in " ".join(capsys.readouterr().out.split())


@pytest.mark.prefect
def test_the_flow_takes_the_name():
    from flows.scan import scan_catalogue  # noqa: PLC0415 - importing Prefect takes seconds

    assert "org" in scan_catalogue.parameters.properties
