"""The ledger beside a model that follows design.md section 5 word by word."""

import asyncio
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.ledger import LEASE_MS, Ledger
from ledger_facts import RUN, SCAN_DATE, START, Clock, claim_of, execute, failed_as, set_gate, spooled
from moderation.admission import Denial, Grant, Refusal
from moderation.budget import MS_PER_HOUR
from moderation.errors import LeaseLost
from moderation.turns import FRESH_MS, Waiting, yields

ENDPOINTS = ("music", "ai_music")
CEILINGS = {"music": 2, "ai_music": 2, "*": 3}
CAPS = {"music": 6000, "ai_music": None, "*": 9000}
PRICES = {"music": 7, "ai_music": 1_000_003}
MONEY_CAPS = {"music": None, "ai_music": 999, "*": 1001}
"""In millionths of the currency: some 3.6 s of audio at the higher price."""
MONTHS = ("2026-11", "2026-12")
WORKERS = ("north", "south")
RUNS = (RUN, "20261121T120000Z-fedcba")


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside a dict of sessions that follows design.md section 5 word by word."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.opened = Ledger.open(Path(self.folder.name) / "ledger.sqlite", clock_ms=self.clock, now=lambda: START)
        self.ledger = self.run(self.opened.__aenter__())
        self.sessions = {}
        self.packages = {}
        self.paused = False
        self.waiting = {}

    def run(self, awaitable):
        return self.runner.run(awaitable)

    def teardown(self):
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @initialize()
    def settings_are_written(self):
        for endpoint, ceiling in CEILINGS.items():
            self.run(set_gate(self.ledger, "acme", endpoint, ceiling))
        for endpoint, cap_ms in CAPS.items():
            self.run(self.ledger.set_cap("acme", endpoint, cap_ms, MONEY_CAPS[endpoint]))
        for endpoint, price in PRICES.items():
            self.run(self.ledger.set_price("acme", endpoint, price))

    def held(self, session):
        return session["state"] == "streaming" and self.clock.ms < session["lease_until"]

    def is_live(self, session):
        return self.held(session) and not session["closed"]

    def live(self, endpoint):
        return sum(self.is_live(s) and endpoint in {"*", s["claim"].endpoint} for s in self.sessions.values())

    def spent(self, endpoint, month):
        """{reserved, settled, at_risk} as sums over sessions."""
        sums = {"reserved": 0, "settled": 0, "at_risk": 0}
        for session in self.sessions.values():
            claim = session["claim"]
            if claim.month == month and endpoint in {"*", claim.endpoint}:
                column = {"streaming": "reserved", "finished": "settled", "published": "settled"}.get(session["state"], "at_risk")
                sums[column] += session["ms"]
        return sums

    def shares(self, claim, more_ms):
        """How much of each cap is taken with so much more."""
        taken = {endpoint: sum(self.spent(endpoint, claim.month).values()) for endpoint in ENDPOINTS}
        taken[claim.endpoint] += more_ms
        cost = {endpoint: Fraction(taken[endpoint] * PRICES[endpoint], MS_PER_HOUR) for endpoint in ENDPOINTS}
        for endpoint in (claim.endpoint, "*"):
            summed = ENDPOINTS if endpoint == "*" else (endpoint,)
            for cap, amounts in ((CAPS[endpoint], taken), (MONEY_CAPS[endpoint], cost)):
                if cap is not None:
                    yield Fraction(sum(amounts[each] for each in summed), cap)

    def over_budget(self, claim, more_ms):
        return max(self.shares(claim, more_ms)) > 1

    def denial(self, claim):
        of_object = [s for s in self.sessions.values() if (s["claim"].object_id, s["claim"].endpoint) == (claim.object_id, claim.endpoint)]
        if any(s["state"] == "streaming" for s in of_object):
            return Denial.CLAIMED
        done_by = {s["claim"].run_id for s in of_object if s["state"] in {"finished", "published"}}
        if claim.run_id in done_by or (done_by and not claim.force):
            return Denial.DONE
        if self.paused:
            return Denial.PAUSED
        if any(self.live(endpoint) >= CEILINGS[endpoint] for endpoint in (claim.endpoint, "*")):
            return Denial.FULL
        return Denial.BUDGET if self.over_budget(claim, claim.estimate_ms) else None

    def waits(self, endpoint, worker):
        since_ms, seen_ms = self.waiting.get((endpoint, worker), (self.clock.ms, self.clock.ms))
        sessions = [s for s in self.sessions.values() if (s["claim"].endpoint, s["claim"].worker) == (endpoint, worker) and self.is_live(s)]
        return Waiting(worker, 0, len(sessions), since_ms, seen_ms)

    def is_anothers(self, claim):
        """A slot that is free, but somebody with fewer sessions waits for it."""
        others = [self.waits(*place) for place in self.waiting if place[0] == claim.endpoint]
        return yields(self.waits(claim.endpoint, claim.worker), others, self.clock.ms)

    def waited(self, claim):
        _, seen_ms = self.waiting.get(place := (claim.endpoint, claim.worker), (0, -FRESH_MS))
        now_ms = self.clock.ms
        if now_ms - seen_ms >= FRESH_MS:
            self.waiting[place] = (now_ms, now_ms)

    @rule(
        number=st.integers(0, 4),
        endpoint=st.sampled_from(ENDPOINTS),
        month=st.sampled_from(MONTHS),
        worker=st.sampled_from(WORKERS),
        estimate_ms=st.integers(0, 2000),
        force=st.booleans(),
        run_id=st.sampled_from(RUNS),
        closed=st.sets(st.integers(0, 99), max_size=2),
    )
    def admits(self, number, closed, **wish):
        claim = claim_of(len(self.sessions), object_id=f"object-{number}", **wish)
        given_back = {self.pick(index) for index in closed} if self.sessions else set()
        for session_id in given_back:
            self.sessions[session_id]["closed"] = True
        expected = self.denial(claim)
        live = self.live("*") if expected is Denial.FULL else None
        if expected is None and self.is_anothers(claim):
            expected = Denial.FULL
        if expected in {Denial.FULL, Denial.PAUSED, Denial.BREAKER}:
            self.waited(claim)
        answer = self.run(self.ledger.admit(claim, given_back))
        if expected is not None:
            assert isinstance(answer, Refusal)
            assert (answer.denial, answer.live) == (expected, live)
            return
        assert answer == Grant(claim.session_id, self.clock.ms + LEASE_MS, spent=answer.spent, deaths=answer.deaths, awaited=answer.awaited)
        assert [cap.share for cap in answer.spent] == pytest.approx([float(share) for share in self.shares(claim, claim.estimate_ms)])
        self.waiting.pop((claim.endpoint, claim.worker), None)
        self.sessions[claim.session_id] = {
            "claim": claim,
            "state": "streaming",
            "ms": claim.estimate_ms,
            "lease_until": self.clock.ms + LEASE_MS,
            "closed": False,
        }

    def pick(self, index):
        return list(self.sessions)[index % len(self.sessions)]

    def end(self, session_id, state, ms):
        self.sessions[session_id] |= {"state": str(state), "ms": ms}

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), share=st.floats(0, 1))
    def finishes(self, index, share):
        session = self.sessions[session_id := self.pick(index)]
        booked_ms = round(session["ms"] * share)
        if self.held(session):
            self.run(self.ledger.finish(session_id, booked_ms))
            self.end(session_id, "finished", booked_ms)
        else:
            with pytest.raises(LeaseLost):
                self.run(self.ledger.finish(session_id, booked_ms))

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), share=st.sampled_from([0, 0.5, 1]))
    def fails(self, index, share):
        session = self.sessions[session_id := self.pick(index)]
        sent_ms = round(session["ms"] * share)
        if session["state"] == "streaming":
            self.run(self.ledger.fail(failed_as(session["claim"]), sent_ms=sent_ms, outcome="failed"))
            state = "at_risk" if sent_ms else "released"
            self.end(session_id, state, sent_ms)
        else:
            with pytest.raises(LeaseLost):
                self.run(self.ledger.fail(failed_as(session["claim"]), sent_ms=sent_ms, outcome="failed"))

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), more_ms=st.integers(0, 2000))
    def extends(self, index, more_ms):
        session = self.sessions[session_id := self.pick(index)]
        if not self.held(session):
            with pytest.raises(LeaseLost):
                self.run(self.ledger.extend(session_id, more_ms))
            return
        allowed = not self.over_budget(session["claim"], more_ms)
        assert self.run(self.ledger.extend(session_id, more_ms)) == allowed
        session["ms"] += more_ms if allowed else 0

    @rule(worker=st.sampled_from(WORKERS))
    def renews(self, worker):
        mine = {name for name, session in self.sessions.items() if self.held(session) and session["claim"].worker == worker}
        assert self.run(self.ledger.renew(worker)) == mine
        for session_id in mine:
            self.sessions[session_id]["lease_until"] = self.clock.ms + LEASE_MS

    @rule(ms=st.sampled_from([15_000, 30_000, LEASE_MS]))
    def time_passes(self, ms):
        self.clock.ms += ms

    @rule(left=st.sampled_from(["nothing", "failure", "result"]))
    def sweeps(self, left):
        stale = [name for name, session in self.sessions.items() if session["state"] == "streaming" and not self.held(session)]
        assert list(self.run(self.ledger.expired())) == stale
        for session_id in self.sessions:
            session = self.sessions[session_id]
            half_ms = session["ms"] // 2
            entry = None if left == "nothing" else spooled(session["claim"], done=left == "result", sent_ms=half_ms, booked_ms=half_ms)
            state = self.run(self.ledger.recover(session_id, entry))
            if session_id not in stale:
                assert state is None
                continue
            failed = "at_risk" if half_ms or left == "nothing" else "released"
            assert state == ("finished" if left == "result" else failed)
            self.end(session_id, state, session["ms"] if left == "nothing" else half_ms)

    @rule(max_sessions=st.integers(1, 3))
    def assigns_a_package(self, max_sessions):
        packaged = {member for members in self.packages.values() for member in members}
        ended = [name for name, s in self.sessions.items() if s["state"] in {"finished", "at_risk", "released"} and name not in packaged]
        waiting = [name for name in ended if self.sessions[name]["claim"].run_id == RUN]
        package = self.run(self.ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=max_sessions))
        members = [member.session_id for member in package.members] if package else []
        assert members == waiting[:max_sessions]
        if package:
            self.packages[package.package] = members

    @precondition(lambda self: self.packages)
    @rule(index=st.integers(0, 99))
    def publishes(self, index):
        package = list(self.packages)[index % len(self.packages)]
        self.run(self.ledger.mark_published(package))
        for session_id in self.packages[package]:
            if self.sessions[session_id]["state"] == "finished":
                self.sessions[session_id]["state"] = "published"

    @rule(pause=st.booleans())
    def pauses_or_resumes(self, pause):
        self.run(self.ledger.pause("acme") if pause else self.ledger.resume("acme"))
        self.paused = pause

    @invariant()
    def counters_are_the_sums_over_sessions_and_limits_hold(self):
        for month in MONTHS:
            for usage in self.run(self.ledger.usage("acme", month)):
                spent = {"reserved": usage.reserved_ms, "settled": usage.settled_ms, "at_risk": usage.at_risk_ms}
                assert spent == self.spent(usage.endpoint, month)
                assert usage.hours.left is None or usage.hours.left >= 0
                assert usage.money.left is None or usage.money.left >= 0
                assert usage.live == self.live(usage.endpoint) <= usage.gate.ceiling

    @invariant()
    def no_object_streams_twice(self):
        streaming = self.run(execute(self.ledger, "SELECT object_id, endpoint FROM sessions WHERE state = 'streaming'"))
        assert len(streaming) == len(set(streaming))


LedgerMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestLedgerAgainstItsModel = LedgerMachine.TestCase
