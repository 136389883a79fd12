"""Who may use the review page, and what a browser may do with it.

A browser gets in with the token that the command prints, and is known from then on by a cookie that no script can read. What changes
anything needs, besides that cookie, the word that only our own forms have, and an Origin that is ours.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from moderation.errors import SoundcheckError
from moderation.printable import printable

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

ENTER = "/enter"
"""The path that takes the token."""
CSRF_FIELD = "csrf"
SESSIONS = 100
"""Browsers that are known at once: of more the first is forgotten."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    hdrs.CONTENT_SECURITY_POLICY: CONTENT_POLICY,
    hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
    # with no-referrer a browser says "Origin: null" of our own forms; to other places this says as little
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    hdrs.CACHE_CONTROL: "no-store",
}
SESSION: web.RequestKey["str"] = web.RequestKey("csrf", str)
"""In a request that came in: the word that its forms must have."""


class Guard:
    """The token, and the browsers that came in with it: a secret cookie and a word for the forms of each.

    remote is the host that others than this machine are wanted at, if any: then the server may be called by that, by any address, or by
    this machine's own name.
    """

    def __init__(self, token: str, remote: str | None = None) -> None:
        self._token = token
        self._remote = remote
        self._sessions: dict[str, str] = {}

    async def enter(self, request: web.Request) -> web.Response:
        """Take the token out of the address, and give a cookie for it."""
        if not _same(request.query.get("token", ""), self._token):
            return refusal(403, "This is not the token of this server: open the address that soundcheck review serve has printed.")
        while len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        self._sessions[session] = secrets.token_urlsafe(32)
        answer = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        answer.set_cookie(cookie_name(request), session, httponly=True, samesite="Strict", path="/")
        return answer

    def middleware(self) -> Middleware:
        """What stands before every path."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._is_called_rightly(request.host):
                return refusal(421, "Call this server by the address that it has printed.")
            if request.path != ENTER:
                csrf = self._csrf_of(request)
                if csrf is None:
                    return refusal(401, "Open the address with the token that soundcheck review serve has printed, and then this one anew.")
                if request.method not in {hdrs.METH_GET, hdrs.METH_HEAD} and not await _is_our_form(request, csrf):
                    return refusal(403, "This did not come from a page of this server, or from one that is out of date: open it anew.")
                request[SESSION] = csrf
            return await _answered(request, handler)

        return guarded

    def _csrf_of(self, request: web.Request) -> str | None:
        said = request.cookies.get(cookie_name(request), "")
        return next((csrf for session, csrf in self._sessions.items() if _same(said, session)), None)

    def _is_called_rightly(self, host: str) -> bool:
        """Whether nobody has made a name of his own lead here (DNS rebinding); an address is nobody's name."""
        name = _name(host)
        if name in LOOPBACK_NAMES or self._remote is None:
            return name in LOOPBACK_NAMES
        return _is_address(name) or name in {self._remote.lower(), socket.gethostname().lower()}


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """What every answer tells the browser."""
    response.headers.update(HEADERS)


def refusal(status: int, sentence: str) -> web.Response:
    """An answer of one sentence."""
    return web.Response(status=status, text=f"{printable(sentence)}\n")


def cookie_name(request: web.Request) -> str:
    """The cookie's name: a browser gives cookies to all ports of a host."""
    return f"soundcheck-review-{urlsplit(f'//{request.host}').port or 80}"


def _is_address(name: str | None) -> bool:
    """Whether a host is an address of numbers."""
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return True


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a handler answers; errors that are ours in their own words."""
    try:
        return await handler(request)
    except SoundcheckError as error:
        return refusal(503, str(error))


async def _is_our_form(request: web.Request, csrf: str) -> bool:
    if request.headers.get(hdrs.ORIGIN) != f"http://{request.host}":
        return False
    if request.content_type != "application/x-www-form-urlencoded":
        return False
    try:
        form = await request.post()
    except (ValueError, LookupError):  # a charset that is none, or not that of the body
        return False
    return _same(str(form.get(CSRF_FIELD, "")), csrf)


def _same(said: str, known: str) -> bool:
    return hmac.compare_digest(said.encode(errors="surrogateescape"), known.encode())


def _name(host: str) -> str | None:
    """A Host header without its port; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts.hostname
