"""A policy as text and as a model: what it means, and what is wrong with it, with the line."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.outcomes import ExitCode
from moderation.policy import Decision, HeldBack, sounds
from moderation.policy_file import PolicyError, line_of, parse_policy

STARTER = (Path(__file__).parents[2] / "tasks" / "starter_policy.toml").read_text(encoding="utf-8")
POLICY = """\
name = "ours"  # line 1
hold_out = 2.5
key_pattern = '^(?P<label>[^/]+)/(?P<album>[^/]+)/'

[[rules]]  # line 5
id = "certain"
when = '''
primary_verdict = 'ai-vocal-music'
  and [[rules]] = 3
'''
decide = "block"
reason = "why"
priority = 7
min_evidence = 20
evidence = "ai_vocal"

[[rules]]  # line 17
id = "rest"
when = "true"
decide = "allow"
reason = "whatever"
"""


def changed(old: str, new: str) -> str:
    assert POLICY.count(old) == 1
    return POLICY.replace(old, new)


def test_a_policy_is_what_its_text_says():
    policy = parse_policy(POLICY, "ours.toml").policy
    certain, rest = policy.rules
    assert (policy.name, policy.hold_out, policy.key_columns) == ("ours", 2.5, {"label": 1, "album": 2})
    assert (certain.decide, certain.priority, certain.min_evidence_ms, certain.evidence) == (Decision.BLOCK, 7, 20_000, "ai_vocal")
    assert (rest.decide, rest.priority, rest.min_evidence_ms, rest.evidence) == (Decision.ALLOW, 0, 0, None)
    assert (policy.held_out(certain), policy.held_out(rest)) == (0, 0.025)


def test_the_starter_policy_is_one():
    policy = parse_policy(STARTER, "starter").policy
    assert {rule.decide for rule in policy.rules} == set(Decision)
    assert policy.rules[-1].decide is Decision.ALLOW, "what blocks and reviews comes first"


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + POLICY,
        changed("hold_out = 2.5\n", "hold_out = 2.50 # percent\n"),
        changed("min_evidence = 20\n", "min_evidence = 20.0\n"),
        changed('name = "ours"  # line 1', "name = 'ours'"),
        changed('when = "true"', 'priority = 0\nwhen = "true"'),
    ],
)
def test_the_hash_is_of_the_meaning(same):
    assert parse_policy(same, "x").policy.policy_hash == parse_policy(POLICY, "y").policy.policy_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [("= 7", "= 8"), ('"true"', '"false"'), ('"why"', '"because"'), ("2.5", "2.6"), ('"allow"', '"review"'), ('"ours"', '"theirs"')],
)
def test_another_meaning_has_another_hash(old, new):
    assert parse_policy(changed(old, new), "x").policy.policy_hash != parse_policy(POLICY, "x").policy.policy_hash


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('decide = "block"', 'decide = "forbid"', 11, r"rule 'certain': decide: .*'forbid'.* allow, review, block"),
        ('reason = "why"\n', "", 5, "rule 'certain': .*missing required field `reason`"),
        ("priority = 7", 'priority = "7"', 13, "rule 'certain': priority: Expected `int`"),
        ("priority = 7", "prority = 7", 13, "rule 'certain': .*unknown field `prority`"),
        ("min_evidence = 20", "min_evidence = -1", 14, "rule 'certain': min_evidence is negative"),
        ("min_evidence = 20", "min_evidence = inf", 14, "rule 'certain': min_evidence is too large"),
        ("min_evidence = 20", "min_evidence = 1e300", 14, "rule 'certain': min_evidence is too large"),
        ("priority = 7", "priority = 99999999999999999999", 13, "rule 'certain': priority is out of range"),
        ("priority = 7", "priority = -9223372036854775809", 13, "rule 'certain': priority is out of range"),
        ('evidence = "ai_vocal"', 'evidence = "noise"', 15, "evidence is one of music, speech, neither, ai_vocal"),
        ('id = "rest"', 'id = "certain"', 18, "rule 'certain': an earlier rule has this id"),
        ('id = "rest"', 'id = "no_rule"', 18, "id takes small letters"),
        ('id = "rest"', 'id = "Rest of it"', 18, "id takes small letters"),
        ('when = "true"', 'when = " "', 19, "when is empty"),
        ('reason = "whatever"', 'reason = ""', 21, "reason is empty"),
        ('reason = "why"', 'hold_out = 3\nreason = "why"', 12, "hold_out is for rules that allow"),
        ("hold_out = 2.5", "hold_out = 101", 2, "hold_out is a percentage"),
        ("hold_out = 2.5", "hold_out = nan", 2, "hold_out is a percentage"),
        ("(?P<label>", "(?P<label", 3, "key_pattern is no regular expression"),
        ("(?P<label>", "(?P<Label>", 3, "key_pattern has groups that are no names of columns.*Label"),
        ("'^(?P<label>[^/]+)/(?P<album>[^/]+)/'", "'^([^/]+)/'", 3, "key_pattern has no named group"),
        ('name = "ours"', "name = 3", 1, "name: Expected `str`"),
        ("priority = 7", "priority = = 7", 13, "Invalid value"),
        ('reason = "whatever"\n', 'reason = """whatever\n', 21, "Unterminated|multi"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old, new, line, says):
    with pytest.raises(PolicyError, match=rf"^ours\.toml, line {line}: .*({says})") as caught:
        parse_policy(changed(old, new), "ours.toml")
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "rules = 3\nname = 'x'", "name = 'x'\nrules = []", "[[rules]]\n", "name = 'x'"])
def test_what_is_no_policy_at_all_is_said(text):
    with pytest.raises(PolicyError, match=r"^x, line \d+: "):
        parse_policy(text, "x")


def test_a_line_is_found_behind_strings_that_look_like_tables():
    assert line_of(POLICY, ("rules", 0)) == 5
    assert line_of(POLICY, ("rules", 0, "when")) == 7
    assert line_of(POLICY, ("rules", 0, "decide")) == 11
    assert line_of(POLICY, ("rules", 1)) == 17
    assert line_of(POLICY, ("rules", 9)) == line_of(POLICY, ("nothing",)) == 1
    assert line_of('rules = [\n  {id = "a"},\n  {id = "b"},\n]\n', ("rules", 1)) == 1
    assert line_of('name = "a"\r\nwhen = 3\r\n', ("when",)) == 2


LINES = ["# a comment", "", 'name_{n} = "x"', 'text_{n} = """', "[[rules]]", "id = 1", '"""', "[other.t_{n}]"]


@given(st.lists(st.sampled_from(LINES), max_size=14))
def test_the_line_of_a_value_is_the_one_that_brings_it(kinds):
    """Whatever a document looks like: without that line the value is not there."""
    lines = [line.format(n=number) for number, line in enumerate(kinds)]
    try:
        document = tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return
    for name in document:
        line = line_of("\n".join(lines), (name,))
        assert name not in tomllib.loads("\n".join(lines[: line - 1]))
        assert name in lines[line - 1]


def test_every_reason_to_hold_back_has_words_and_every_sound_is_named_once():
    assert all(why.words for why in HeldBack)
    assert sounds() == ("music", "speech", "neither", "ai_vocal")
    assert msgspec.json.encode(HeldBack.HOLD_OUT) == b'"hold_out"'
