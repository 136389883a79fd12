"""The two streams of a terminal: results on standard output, everything else on standard error."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from moderation.printable import printable

stdout = Console()
stderr = Console(stderr=True)


def shown(text: str) -> Text:
    """Anybody's text for a terminal: printable, and never taken for markup."""
    return Text(printable(text))


def say_error(message: str, exit_code: int, *, as_json: bool) -> None:
    """One line that says what is wrong; with as_json also the one object on standard output."""
    stderr.print(shown(f"soundcheck: {message}"), style="red", soft_wrap=True)
    if as_json:
        say_json({"error": message, "exit_code": exit_code})


def say_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command, on a line of its own."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
