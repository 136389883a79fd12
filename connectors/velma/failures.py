"""What went wrong, in our words: failures of connecting, and who ended a connection why."""

import ssl
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from websockets.asyncio.client import ClientConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidProxyStatus, InvalidStatus, ProxyError

from connectors.velma.key import ApiKey
from moderation.errors import ConfigurationError, Phase, SessionError, SoundcheckError
from moderation.session import NORMAL_CLOSE

NO_CODE = 1005
"""What the library calls the code of a close frame that has none."""
TEXT_CHARACTERS = 200
"""As much as is kept of the body of a refused upgrade."""


def connect_failure(error: Exception, host: str, key: ApiKey) -> SoundcheckError:
    """What a failed connect means, without its exception: that may carry the URL, and so the key."""
    if isinstance(error, InvalidStatus):
        response = error.response
        text = key.redact(response.body.decode("utf-8", "replace"))[:TEXT_CHARACTERS].strip() if response.body else None
        retry_after = retry_after_s(response.headers)
        detail = f"{host} refused the connection"
        return SessionError(detail, phase=Phase.CONNECTING, http_status=response.status_code, text=text, retry_after=retry_after)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"the TLS certificate of {host} cannot be trusted ({error.verify_message}): nothing was sent")
    if isinstance(error, InvalidHandshake) and not isinstance(error, ProxyError) and not _hung_up(error):
        return SessionError(f"{host} does not speak WebSocket ({type(error).__name__})", phase=Phase.CONNECTING, protocol="handshake")
    return SessionError(_no_connection(error, host), phase=Phase.CONNECTING)


def _hung_up(error: InvalidHandshake) -> bool:
    """Whether the other side has left before it answered: a fault of the network, not of the protocol."""
    return isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError)


def _no_connection(error: Exception, host: str) -> str:
    if isinstance(error, InvalidProxyStatus):
        return f"the proxy refused to connect to {host} (HTTP {error.response.status_code})"
    if isinstance(error, ProxyError):
        return f"the proxy on the way to {host} does not answer like one"
    if isinstance(error, InvalidHandshake):
        return f"{host} closed the connection before it answered"
    if isinstance(error, TimeoutError):
        return f"{host} did not answer in time"
    if isinstance(error, OSError):
        return f"{host} cannot be reached ({error.strerror or type(error).__name__})"
    return f"connecting to {host} failed ({type(error).__name__})"


def retry_after_s(headers: Headers) -> float | None:
    """The seconds of the first Retry-After header, a date counted from the response's own Date (RFC 9110, 10.2.3); None without one."""
    said = _first(headers.get_all("Retry-After"))
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        until, since = (parsedate_to_datetime(text) for text in (said, _first(headers.get_all("Date"))))
        return max(0.0, (until - since).total_seconds())
    except (ValueError, TypeError):  # no dates, or one without its time zone
        return None


def _first(values: Sequence[str]) -> str:
    return values[0].strip() if values else ""


def complaint(connection: ClientConnection) -> str | None:
    """What this side failed the connection for (RFC 6455, section 7.1.7); the close code that came back is then but an echo."""
    sent = connection.protocol.close_sent
    if sent is None or sent.code == NORMAL_CLOSE or connection.protocol.close_rcvd_then_sent:
        return None
    return sent.reason or str(sent.code)


def closed_by_service(connection: ClientConnection) -> bool:
    """Whether the service or the network ended the connection: an echo of this side's close, or no answer to it, says nothing."""
    sent, received = connection.protocol.close_sent, connection.protocol.close_rcvd
    if sent is None or connection.protocol.close_rcvd_then_sent:
        return True
    return received is not None and received.code not in {sent.code, NORMAL_CLOSE, NO_CODE}
