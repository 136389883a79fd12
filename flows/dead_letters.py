"""What those who are to be told did not take: shown, and sent again."""

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from connectors.letters import Letter
from flows.console import shown
from flows.notifying import letters_of, notices_of
from flows.settings import Settings


def undelivered(settings: Settings) -> list[Letter]:
    """The letters of an organisation that have not arrived, the oldest first."""
    return [letter for letter in letters_of(settings).undelivered() if letter.org == settings.org]


async def send_again(settings: Settings) -> tuple[int, list[Letter]]:
    """Send them once more: how many have arrived, and which have not."""
    letters = await asyncio.to_thread(undelivered, settings)
    left = await notices_of(settings).resend(letters)
    return len(letters) - len(left), left


def as_json(letters: Sequence[Letter]) -> list[dict[str, Any]]:
    """Letters as plain values, without their bodies."""
    return [
        {"event_id": each.event_id, "to": each.to, "written_at": each.written_at.isoformat(), "why": each.why, "text": each.text}
        for each in letters
    ]


def print_letters(letters: Sequence[Letter], console: Console) -> None:
    """A table of letters."""
    if not letters:
        console.print("Everything has arrived.", highlight=False)
        return
    table = Table("event", "to", "since (UTC)", "why")
    table.add_column("what", overflow="fold")
    for each in letters:
        why = each.why or "its process ended"
        table.add_row(each.event_id, each.to, f"{each.written_at:%Y-%m-%d %H:%M}", shown(why), shown(each.text))
    console.print(table)
