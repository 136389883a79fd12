"""Settings: precedence, errors that name what is wrong, and no secret in any of them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from flows.setting_types import text_patterns
from flows.settings import fixed_settings, load_settings
from moderation.breaker import Breaker, BreakerRules, BreakerState, OpenedBy
from moderation.errors import AccessDeniedError, ConfigurationError, Phase, SessionError
from moderation.outcomes import ExitCode, StopCause
from moderation.refusals import CAPACITY, NOT_PERMITTED, QUOTA, SERVICE_FAULT, UNDECODABLE, classify

KEY = "canary-5f0e9d1c7b"
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_go_before_the_environment_before_dotenv_before_toml(empty_place, monkeypatch):
    (empty_place / "soundcheck.toml").write_text('connections = 1\norg = "toml"\nresults = "toml"\nproxy = "http://toml"\n')
    (empty_place / ".env").write_text("SOUNDCHECK_CONNECTIONS=2\nSOUNDCHECK_ORG=dotenv\nSOUNDCHECK_RESULTS=dotenv\nAWS_PROFILE=somebody\n")
    monkeypatch.setenv("SOUNDCHECK_CONNECTIONS", "3")
    monkeypatch.setenv("SOUNDCHECK_ORG", "environment")
    settings = load_settings(connections=4, org=None)
    assert (settings.connections, settings.org, settings.results, settings.proxy) == (4, "environment", "dotenv", "http://toml")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (".env", "SOUNDCHECK_CONECTIONS=3\n", "unknown setting SOUNDCHECK_CONECTIONS"),
        ("soundcheck.toml", "conections = 3\n", "unknown setting conections in soundcheck.toml"),
        ("soundcheck.toml", "connections = \n", "soundcheck.toml is no TOML"),
        ("soundcheck.toml", "connections = 0\n", "setting connections: "),
        ("soundcheck.toml", 'endpoints = ["musik"]\n', "unknown endpoint 'musik'"),
        ("soundcheck.toml", '[hosts]\nmusik = "wss://x"\n', "unknown endpoint 'musik'"),
        (
            "soundcheck.toml",
            'transcode = "never"\n[[raw_rules]]\nglob = "*.raw"\naudio_format = "s16le"\nsample_rate = 12000\nnum_channels = 1\n',
            r"raw_rules, '\*.raw': sample_rate 12000",
        ),
        (
            "soundcheck.toml",
            '[[raw_rules]]\nglob = "*.raw"\naudio_format = "s16le"\nsample_rate = 12\nnum_channels = 1\n',
            r"raw_rules, '\*.raw': 12 Hz and 1 channels are no audio",
        ),
        ("soundcheck.toml", 'transcode = "sometimes"\n', "setting transcode: .*'auto', 'always' or 'never'"),
        ("soundcheck.toml", "[endpoint_hours]\nmusik = 1\n", "unknown endpoint 'musik'"),
        ("soundcheck.toml", "[endpoint_connections]\nmusic = 0\n", "setting endpoint_connections.music: "),
        ("soundcheck.toml", "[prices]\nmusic = 0.12\n", "prices are in no currency"),
        ("soundcheck.toml", 'currency = "USD"\n[prices]\nmusic = 0.1234567\n', "setting prices.music: .* 6 decimal places"),
        ("soundcheck.toml", 'currency = "USD"\nmonthly_cost = 9\n[prices]\nmusic = 0.12\n', "set prices for ai_music"),
        ("soundcheck.toml", 'currency = "USD"\n[endpoint_costs]\nai_music = 9\n[prices]\nmusic = 0.12\n', "set prices for ai_music"),
        ("soundcheck.toml", "monthly_cost = 9\n", "set prices for ai_music, music"),
        ("soundcheck.toml", 'month_zone = "Europe/Nowhere"\n', "unknown time zone 'Europe/Nowhere'"),
        ("soundcheck.toml", "warn_share = 1.5\n", "setting warn_share: "),
        ("soundcheck.toml", 'on_quota = "wait"\n', "setting on_quota: .*'end' or 'suspend'"),
        ("soundcheck.toml", 'roots = ["b/acme"]\n', "setting roots.0: .*not an S3 address"),
        ("soundcheck.toml", '[[refusal_texts]]\npattern = "over ("\nmeans = "quota"\n', r"refusal_texts, 'over \(' is no regular"),
        ("soundcheck.toml", '[[refusal_texts]]\npattern = "x*"\nmeans = "quota"\n', r"refusal_texts, 'x\*' is found in every text"),
        ("soundcheck.toml", '[[refusal_texts]]\npattern = "over"\nmeans = "money"\n', "setting refusal_texts.0.means: .*'quota'"),
        (".env", "SOUNDCHECK_NOTIFY_URL=http://chat.example/canary-5f0e9d1c7b\n", "setting notify_url: .*https"),
    ],
)
def test_what_is_wrong_is_named(empty_place, file, text, said):
    (empty_place / file).write_text(text)
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings()
    assert raised.value.exit_code is ExitCode.CONFIGURATION
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(("name", "value"), [("ENDPOINTS", "music"), ("HOSTS", "wss://x"), ("RETRIES", "3")])
def test_lists_and_tables_are_json_in_the_environment(monkeypatch, name, value):
    monkeypatch.setenv(f"SOUNDCHECK_{name}", value)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert name.lower() in str(raised.value)


def test_the_key_is_in_no_text_of_the_settings(monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_API_KEY", KEY)
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert KEY not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("SOUNDCHECK_CONNECTIONS", KEY)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert KEY not in str(raised.value)


def test_the_demo_depends_on_nothing_outside(monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_MONTHLY_HOURS", "0")
    assert fixed_settings(results="out").monthly_hours is None


def test_a_denied_key_has_its_own_exit_code():
    assert AccessDeniedError("no").exit_code is ExitCode.ACCESS_DENIED


def test_budgets_are_exact(empty_place):
    (empty_place / "soundcheck.toml").write_text(
        'currency = "USD"\nmonthly_cost = 250\nendpoint_hours = {music = 100}\n[prices]\nmusic = 0.12\nai_music = "0.000001"\n'
    )
    settings = load_settings()
    assert settings.prices == {"music": Decimal("0.12"), "ai_music": Decimal("0.000001")}
    assert (settings.monthly_cost, settings.endpoint_hours, settings.warn_share) == (Decimal(250), {"music": 100.0}, 0.8)


def test_no_price_is_ever_assumed():
    settings = load_settings()
    assert (settings.prices, settings.currency, settings.monthly_cost, settings.endpoint_costs) == ({}, None, None, {})


def test_a_cap_in_money_needs_the_prices_of_what_is_scanned_alone(empty_place):
    (empty_place / "soundcheck.toml").write_text('currency = "USD"\nmonthly_cost = 9\n[prices]\nmusic = 0.12\n')
    assert load_settings(endpoints=["music"]).monthly_cost == 9


def test_a_flag_for_all_endpoints_is_not_undone_by_a_setting_for_one(empty_place):
    (empty_place / "soundcheck.toml").write_text(
        'connections = 4\nendpoint_connections = {music = 9}\n[hosts]\nmusic = "wss://real.example"\n'
    )
    settings = load_settings(connections=1, velma_url="ws://127.0.0.1:9")
    assert (settings.connections, settings.endpoint_connections, settings.hosts) == (1, {}, {})
    assert load_settings().endpoint_connections == {"music": 9}


@pytest.mark.parametrize("url", ["https://hooks.example/T0/abc", "http://127.0.0.1:9/x", "http://[::1]:9/x", "http://localhost/x"])
def test_a_notice_goes_where_nobody_listens_on_the_way(url):
    settings = fixed_settings(notify_url=url)
    assert settings.notify_url is not None
    assert settings.notify_url.get_secret_value() == url
    assert url not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("url", ["http://hooks.example/T0", "ftp://127.0.0.1/x", "https://", "https://[", "hooks.example"])
def test_a_notice_goes_nowhere_else(url):
    with pytest.raises(ValidationError, match="give https://host"):
        fixed_settings(notify_url=url)


def pauses(rules: BreakerRules, by: OpenedBy, probes: int) -> list[int]:
    """The pauses before so many probes, of which the first opens the breaker and every one is refused."""
    breaker, now_ms, found = Breaker().opened(by, 0, 0.5, rules), 0, []
    for number in range(probes):
        found.append(breaker.until_ms - now_ms)
        now_ms = breaker.until_ms
        breaker = breaker.started(str(number), now_ms, rules, as_probe=True).probe_refused(by, now_ms, 0.5, rules)
        if breaker.given_up(now_ms, rules) is not None:
            break
    return found


def test_a_spent_quota_ends_the_run_after_one_probe():
    rules = fixed_settings().gate_rules().breaker
    assert pauses(rules, OpenedBy.QUOTA, 3) == [MINUTE_MS]


@pytest.mark.parametrize(("by", "first"), [(OpenedBy.QUOTA, [MINUTE_MS]), (OpenedBy.UNDECIDED, [0, MINUTE_MS])])
def test_a_suspended_run_asks_every_quarter_of_an_hour_for_ever(by, first):
    rules = fixed_settings(on_quota="suspend").gate_rules().breaker
    assert pauses(rules, by, 300) == first + [15 * MINUTE_MS] * (300 - len(first))


def test_a_suspended_run_still_ends_for_everything_else():
    rules = fixed_settings(on_quota="suspend", breaker=BreakerRules(in_a_row=7)).gate_rules().breaker
    assert rules.in_a_row == 7
    assert {plan.stop for plan in rules.plans.values() if plan.refusals is not None} == {
        StopCause.ACCESS_DENIED,
        StopCause.SERVICE_UNREACHABLE,
    }
    refused = Breaker(BreakerState.OPEN, OpenedBy.PREFLIGHT, bad_probes=2)
    assert refused.given_up(0, rules) is StopCause.ACCESS_DENIED


@pytest.mark.parametrize(
    ("means", "cause"),
    [("key", NOT_PERMITTED), ("capacity", CAPACITY), ("quota", QUOTA), ("service", SERVICE_FAULT), ("object", UNDECODABLE)],
)
def test_a_text_of_ones_own_is_heard_before_those_of_the_table(means, cause):
    settings = fixed_settings(refusal_texts=[{"pattern": r"Plan \w+ is closed", "means": means}])
    own = text_patterns(settings.refusal_texts)
    said = SessionError("it ended", phase=Phase.ADMITTED, close_code=1011, text="PLAN gold is closed: internal server error.")
    assert classify(said, own) is cause
    assert classify(said) is SERVICE_FAULT
    unsaid = SessionError("it ended", phase=Phase.ADMITTED, close_code=4029)
    assert classify(unsaid, own) is classify(unsaid)


def test_the_months_of_caps_are_those_of_the_zone_that_is_set():
    instant = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert fixed_settings().month(instant) == "2026-11"
    assert fixed_settings(month_zone="Europe/Berlin").month(instant) == "2026-12"
