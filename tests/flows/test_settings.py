"""Settings: precedence, errors that name what is wrong, and no secret in any of them."""

import pytest

from flows.settings import fixed_settings, load_settings
from moderation.errors import AccessDeniedError, ConfigurationError
from moderation.outcomes import ExitCode

KEY = "canary-5f0e9d1c7b"


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
            '[[raw_rules]]\nglob = "*.raw"\naudio_format = "s16le"\nsample_rate = 12000\nnum_channels = 1\n',
            r"raw_rules, '\*.raw': sample_rate 12000",
        ),
    ],
)
def test_what_is_wrong_is_named(empty_place, file, text, said):
    (empty_place / file).write_text(text)
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings()
    assert raised.value.exit_code is ExitCode.CONFIGURATION


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
