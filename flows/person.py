"""Who runs a command, for what stays on record."""

import getpass
import os


def who() -> str:
    """The user's name as the environment or the system has it; where neither knows one, as in many containers, the user's number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
