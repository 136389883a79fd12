"""The key by itself."""

import copy
import json
import pickle

import pytest

from canary import CANARY, CANARY_HEAD
from connectors.velma import ApiKey, VelmaClient, VelmaSettings
from moderation.errors import ConfigurationError


def test_a_key_shows_itself_to_nobody():
    key = ApiKey(CANARY)
    client = VelmaClient(key, VelmaSettings())
    assert CANARY_HEAD not in repr(key) + str(key) + f"{key!r}{key}" + repr(client) + repr(vars(client))
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            copier(key)
    assert key.reveal() == CANARY


@pytest.mark.parametrize("key", ["", " ", "sk-live\n", "sk live", " sk-live", "sk-líve", "sk-\x00", "sk-live\u200b"])
def test_keys_that_are_none(key):
    with pytest.raises(ConfigurationError, match="the API key is empty or has characters that no key has") as raised:
        ApiKey(key)
    assert "live" not in str(raised.value)


@pytest.mark.parametrize("spelling", [CANARY, "CANARY-4d1f%2F%2B%3D%25", "CANARY-4d1f/%2B%3D%25"])
def test_a_key_is_redacted_however_it_is_spelt(spelling):
    assert ApiKey(CANARY).redact(f"a {spelling} b") == "a [key] b"


def test_a_key_that_json_spells_in_another_way():
    assert ApiKey('sk-live"\\').redact(json.dumps({"error": 'sk-live"\\ is wrong'})) == '{"error": "[key] is wrong"}'


@pytest.mark.parametrize("key", ["x", "type", "0123456"])
def test_a_key_too_short_to_be_told_from_words_is_refused(key):
    """Taken out of every message, it would leave none that could be read."""
    with pytest.raises(ConfigurationError, match="fewer than 8 characters: check that all of it was copied") as raised:
        ApiKey(key)
    assert key not in str(raised.value).split()
    assert ApiKey(key + "-" * 7).reveal()


@pytest.mark.parametrize("message", [CANARY, f"a {CANARY} b", CANARY.encode(), b"\xff\x00" + CANARY.encode() + b"\xfe"])
def test_a_message_is_redacted_and_otherwise_left_as_it_is(message):
    redacted = ApiKey(CANARY).redact_message(message)
    key, shown = (CANARY, "[key]") if isinstance(message, str) else (CANARY.encode(), b"[key]")
    assert redacted == message.replace(key, shown)
