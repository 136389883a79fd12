"""Whose results they are, by the host that made them: only a server on the scanning machine is spoken to at such an address."""

import re

LOCAL_RESULTS = "results of a server on the scanning machine, such as soundcheck's reference detector: not Modulate's model"
"""What every page and table says of them."""
_LOOPBACK = re.compile(r"(?:\w+://)?(?:localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)(?::\d+)?(?:/.*)?", re.IGNORECASE)


def is_local(host: str) -> bool:
    """Whether results by this host, as the summaries name it, come from a server on the machine that scanned."""
    return _LOOPBACK.fullmatch(host) is not None
