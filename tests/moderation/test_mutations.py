"""A good transcript broken in every way that we know: each is harmless, flagged, or leaves no result, and is known by its name."""

import random
import secrets
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from moderation.errors import Phase
from moderation.messages import upper_bound
from moderation.results import Flag
from moderation.session import State
from moderation.transcript import Received, replay
from moderation.violations import Breach
from mutants import MUTATIONS, attack
from mutations import ENDINGS, FLAGGED, HARMLESS, VIOLATIONS, exaggerated, mutated, named, replaced
from transcripts import BOTH, COUNT, MIDDLE, MUSIC, assert_columns, failure_of, good


@BOTH
@pytest.mark.parametrize("mutate", named(HARMLESS))
def test_harmless_changes_leave_a_clean_result(endpoint, mutate):
    result = replay(mutated(endpoint, mutate)).result()
    assert result.flags == frozenset()
    assert len(result.columns) == COUNT
    assert result.covered_ms == result.booked_ms == COUNT * endpoint.item_ms


@BOTH
@pytest.mark.parametrize(("mutate", "flags"), named(FLAGGED))
def test_a_paid_result_with_a_defect_is_kept_and_flagged(endpoint, mutate, flags):
    session = replay(mutated(endpoint, mutate))
    assert session.result().flags == flags
    assert session.state is State.DONE


@BOTH
@pytest.mark.parametrize(("mutate", "breach"), named(VIOLATIONS))
def test_what_breaks_the_protocol_leaves_no_result(endpoint, mutate, breach):
    session = replay(mutated(endpoint, mutate))
    error = failure_of(session)
    assert (error.protocol, session.state) == (breach, State.BROKEN)
    assert session.over


@BOTH
@pytest.mark.parametrize(("mutate", "code", "text"), named(ENDINGS))
def test_without_done_there_is_no_result_whatever_the_close(endpoint, mutate, code, text):
    session = replay(mutated(endpoint, mutate))
    error = failure_of(session)
    assert (error.close_code, error.text, error.protocol) == (code, text, None)
    assert error.phase is session.phase is not Phase.CONNECTING


def test_every_flag_and_every_breach_has_a_mutation():
    assert {flag for _, flags in FLAGGED.values() for flag in flags} == set(Flag)
    assert {breach for _, breach in VIOLATIONS.values()} == set(Breach)


@BOTH
@pytest.mark.parametrize("name", ["an item comes twice", "an item comes again later", "an item comes again at the end"])
def test_exact_duplicates_are_dropped_and_counted_wherever_they_come(endpoint, name):
    session = replay(mutated(endpoint, FLAGGED[name][0]))
    assert session.duplicates == 1
    assert_columns(session, endpoint, range(COUNT))


@BOTH
@pytest.mark.parametrize("name", ["an item comes again with another measurement", "an item comes late", "two items are swapped"])
def test_what_is_no_exact_duplicate_is_kept_in_the_order_received(endpoint, name):
    transcript = mutated(endpoint, FLAGGED[name][0])
    session = replay(transcript)
    received = [entry for entry in transcript if isinstance(entry, Received)]
    assert len(session.columns) == len(received) - 1
    assert session.duplicates == 0
    assert list(session.columns.spans()) != sorted(set(session.columns.spans()))


@BOTH
def test_a_figure_of_done_out_of_its_range_is_kept_as_it_came(endpoint):
    result = replay(mutated(endpoint, exaggerated)).result()
    name = next(name for name in endpoint.done_type.__struct_fields__ if upper_bound(name) > 1)
    assert getattr(result.done, name) == 130.0


@BOTH
def test_a_broken_message_is_kept_for_people_in_512_characters(endpoint):
    error = failure_of(replay(mutated(endpoint, replaced(MIDDLE, Received("what" * 500)))))
    assert ("what" * 128) in str(error)
    assert ("what" * 129) not in str(error)


# ------------------------------------------------------------------------------------------------- random mutations; see mutants.py


def test_ten_thousand_mutated_messages_raise_nothing_else_and_give_no_wrong_row():
    ends = attack("check", 10_000)
    assert all(ends.values())


def test_every_random_mutation_changes_something_and_can_be_repeated():
    for mutation in MUTATIONS:
        one, same = (list(good(MUSIC, 6)) for _ in range(2))
        for place in range(20):
            mutation(random.Random(place), one)
            mutation(random.Random(place), same)
        assert one == same != good(MUSIC, 6), mutation.__name__


@pytest.mark.torture
def test_a_million_mutated_messages_raise_nothing_else_and_give_no_wrong_row():
    seed, shares = secrets.token_hex(4), 20
    sys.stdout.write(f"seed of the million: {seed}\n")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        ends = list(pool.map(attack, [f"{seed}/{share}" for share in range(shares)], [1_000_000 // shares] * shares))
    assert sum(end["messages"] for end in ends) >= 1_000_000
    assert all(value for end in ends for value in end.values())
