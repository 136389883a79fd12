"""A key that must show nowhere, and every place where an error could show it."""

import contextlib
import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

CANARY_HEAD = "CANARY-4d1f"
CANARY = CANARY_HEAD + "/+=%"
"""A key that URLs spell in another way."""


@contextmanager
def everything_logged(caplog) -> Iterator[None]:
    """Every logger at DEBUG, whatever it was set to."""
    with contextlib.ExitStack() as levels:
        for name in ["", *logging.root.manager.loggerDict]:
            levels.enter_context(caplog.at_level(logging.DEBUG, logger=name))
        yield


def surfaces(failure: BaseException) -> dict[str, str]:
    """Every way in which an error is shown or stored."""
    shown = traceback.TracebackException.from_exception(failure, capture_locals=True)
    return {
        "str": str(failure),
        "repr": repr(failure),
        "facts": repr(vars(failure)),
        "pickle": repr(pickle.dumps(failure)),
        "traceback with locals": "".join(shown.format()),
    }
