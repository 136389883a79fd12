"""Decisions over the results that settings name: what a policy made of them, and what another would, for people and as JSON."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.console import shown, stderr
from flows.notifying import notices_of
from flows.results import opened
from flows.settings import Settings
from flows.telling import tell_changes
from flows.wiring import policy_of
from moderation.errors import ConfigurationError
from moderation.identity import run_id
from moderation.outcomes import ExitCode
from moderation.policy_file import PolicyText
from tasks.decide import Decided, Difference, decide, difference, find_policy, read_policy
from tasks.records import Run

NO_POLICY = "no policy: give --policy FILE, or set SOUNDCHECK_POLICY; soundcheck decide --starter prints one to begin with"


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a policy has made of an organisation's results at an address."""

    results: str
    org: str
    done: Decided
    run: Run

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        done = self.done
        return {
            "results": self.results,
            "org": self.org,
            "policy": done.policy,
            "policy_hash": done.policy_hash,
            "objects": done.objects,
            "decisions": done.by_decision,
            "rules": done.counts.to_dicts(),
            "written": int(done.changes["objects"].sum()),
            "changes": done.changes.to_dicts(),
            "file": done.file,
            "changed_decisions": done.turned_total,
            "exit_code": int(ExitCode.OK),
        }

    def sentence(self) -> str:
        """The same in a sentence."""
        done = self.done
        what = ", ".join(f"{count:,} {decision}" for decision, count in done.by_decision.items()) or "nothing to decide"
        new = int(done.changes["objects"].sum())
        written = f"{new:,} decisions are new or changed" if new else "no decision has changed, and nothing was written"
        return f"{done.objects:,} objects of {self.org} by policy {done.policy} ({done.policy_hash}): {what}; {written}."


@dataclass(frozen=True, slots=True)
class Comparison:
    """What another policy would make of an organisation's results at an address."""

    results: str
    org: str
    found: Difference

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        found = self.found
        told = {"results": self.results, "org": self.org, "before": found.before_hash, "after": found.after_hash}
        return {**told, "objects": found.objects, "flips": found.flips.to_dicts(), "exit_code": int(ExitCode.OK)}

    def sentence(self) -> str:
        """The same in a sentence."""
        found = self.found
        flips = f"{found.objects:,} objects of {self.org} flip" if found.objects else f"no object of {self.org} flips"
        return f"From policy {found.before_hash} to {found.after_hash} {flips}; nothing was written."


def decide_results(settings: Settings, now: Callable[[], datetime]) -> Decisions:
    """Decide over the results of one organisation's settings, and write what has changed. Raises ConfigurationError without any."""
    told = _needed(settings)
    store, open_lake = opened(settings)
    _say(f"deciding about {settings.org} in {store.url} by {told.origin}")
    at = now()
    run = Run(run_id(at, secrets.token_bytes(3)), settings.org, at)
    return Decisions(store.url, settings.org, decide(store, open_lake, run, told, at), run)


async def tell(settings: Settings, decided: Decisions) -> None:
    """Tell those whom the settings name what has changed, also what others have left untold; where they name nobody, say what would be."""
    notices = notices_of(settings)
    if decided.done.turned_total and notices.dry:
        _say(f"{decided.done.turned_total:,} changed decisions would be told, but nobody is set to be (notify_url, notify_people)")
    store, open_lake = opened(settings)
    await tell_changes(notices, store, open_lake, settings.org, decided.run.started_at)


def compare(settings: Settings, before: str) -> Comparison:
    """What flips from another policy, a file or the hash of one that has decided, to that of the settings. Nothing is written."""
    after = _needed(settings)
    store, open_lake = opened(settings)
    earlier = read_policy(Path(before)) if Path(before).is_file() else find_policy(store, before)
    _say(f"comparing {earlier.origin} with {after.origin} over {settings.org} in {store.url}")
    return Comparison(store.url, settings.org, difference(open_lake, settings.org, earlier, after))


def print_decisions(done: Decisions, console: Console) -> None:
    """A table of decisions by rule, and a sentence."""
    table = Table("decision", "rule", "held back by")
    table.add_column("objects", justify="right")
    for row in done.done.counts.iter_rows(named=True):
        table.add_row(row["decision"], shown(row["rule_id"]), row["held_back"] or "", f"{row['objects']:,}")
    if done.done.objects:
        console.print(table)
    console.print(shown(done.sentence()), soft_wrap=True)


def print_comparison(done: Comparison, console: Console) -> None:
    """A table of flips, and a sentence."""
    table = Table("from", "to", "by rule", "before by")
    table.add_column("objects", justify="right")
    table.add_column("such as", overflow="fold")
    for row in done.found.flips.iter_rows(named=True):
        examples = shown(", ".join(row["examples"]))
        table.add_row(row["before"], row["after"], shown(row["rule_after"]), shown(row["rule_before"]), f"{row['objects']:,}", examples)
    if done.found.objects:
        console.print(table)
    console.print(shown(done.sentence()), soft_wrap=True)


def _needed(settings: Settings) -> PolicyText:
    told = policy_of(settings)
    if told is None:
        raise ConfigurationError(NO_POLICY)
    return told


def _say(step: str) -> None:
    stderr.print(shown(f"{step} ..."), style="dim", soft_wrap=True)
