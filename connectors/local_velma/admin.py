"""The admin API of the local server: what it saw, and what its organisation and switches are, read and changed while it runs.

Everything below /admin/ is for who has the token, from this machine, and never for a page in a browser. JSON in and out; a body that
cannot be understood gets 400 and one sentence. No key is ever said, only its number.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from msgspec import UNSET, Meta, UnsetType

from connectors.local_velma.connection import BROKEN, Service
from connectors.local_velma.organisation import Organisation, Seat
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body")

PREFIX = "/admin/"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Count: TypeAlias = Annotated[int, Meta(ge=0)]
Hours: TypeAlias = Annotated[float, Meta(ge=0)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]


class OrganisationChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed: what is left out stays, null is no limit. Hours are audio-hours."""

    add_keys: tuple[Key, ...] = ()
    revoke_keys: tuple[Key, ...] = ()
    max_connections: Count | dict[str, Count | None] | UnsetType | None = UNSET
    total_connections: Count | UnsetType | None = UNSET
    monthly_hours: Hours | UnsetType | None = UNSET
    credit_hours: Hours | UnsetType | None = UNSET

    def apply(self, organisation: Organisation) -> None:
        """Change the organisation; a key that is both added and revoked is revoked."""
        for name in ("max_connections", "total_connections", "monthly_hours", "credit_hours"):
            if (value := getattr(self, name)) is not UNSET:
                setattr(organisation, name, value)
        for key in self.add_keys:
            organisation.add_key(key)
        for key in self.revoke_keys:
            organisation.revoke_key(key)


def guard(token: str) -> Middleware:
    """What stands before every path below /admin/, whoever answers it: who may ask, and 400 for bodies that are not understood."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(PREFIX):
            return await handler(request)
        if (reason := _stranger(request)) is not None:
            return _problem(403, reason)
        said = request.headers.get(hdrs.AUTHORIZATION, "").encode(errors="surrogateescape")
        if not hmac.compare_digest(said, f"Bearer {token}".encode()):
            refused = _problem(401, "Send the token that the server said at its start, as: Authorization: Bearer TOKEN.")
            refused.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return refused
        try:
            return await handler(request)
        except (msgspec.MsgspecError, UnicodeDecodeError, ConfigurationError) as error:
            return _problem(400, f"Correct the body and send it again: {error}.")
        except web.HTTPException as error:
            return _problem(error.status, error.text or error.reason)

    return guarded


def routes(service: Service) -> list[web.RouteDef]:
    """The paths of the organisation, the journal and the switches."""
    admin = _Admin(service)
    return [
        web.get("/admin/usage", admin.usage),
        web.post("/admin/usage/reset", admin.new_month),
        web.get("/admin/sessions", admin.sessions),
        web.delete("/admin/sessions/{number:[0-9]{1,12}}", admin.end_session),
        web.get("/admin/journal", admin.journal),
        web.patch("/admin/organisation", admin.change_organisation),
        web.get("/admin/switches", admin.switches),
        web.patch("/admin/switches", admin.change_switches),
    ]


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """The body of a request as a typed value; `guard` answers where it is not that."""
    return msgspec.json.decode(await request.read(), type=kind)


def answer(value: object) -> web.Response:
    """A value as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


class _Admin:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._organisation = service.organisation

    async def usage(self, _: web.Request) -> web.Response:
        organisation, journal = self._organisation, self._service.journal
        by_endpoint = {
            name: {
                "used_ms": organisation.used[name],
                "sessions": organisation.sessions[name],
                "live": organisation.live[name],
                "peak": journal.peak[name],
                "max_connections": organisation.limit_of(name),
            }
            for name in ENDPOINTS
        }
        return answer(
            {
                "detector": journal.detector,
                "used_ms": organisation.used_ms,
                "total_connections": organisation.total_connections,
                "monthly_hours": organisation.monthly_hours,
                "credit_hours": organisation.credit_hours,
                "keys": len(organisation.api_keys),
                "endpoints": by_endpoint,
                "events": journal.counts,
            }
        )

    async def new_month(self, request: web.Request) -> web.Response:
        self._organisation.new_month()
        return await self.usage(request)

    async def sessions(self, _: web.Request) -> web.Response:
        return answer({"sessions": [_shown(seat) for seat in self._organisation.seats.values()]})

    async def end_session(self, request: web.Request) -> web.Response:
        seat = self._organisation.seats.get(int(request.match_info["number"]))
        if seat is None:
            return _problem(404, "Take the number of a live session from /admin/sessions.")
        seat.session.end(BROKEN)
        return answer(_shown(seat))

    async def journal(self, request: web.Request) -> web.Response:
        position = request.query.get("since", "0")
        if not (position.isascii() and position.isdigit()):
            return _problem(400, "Let since be the position of the last line that you have, or leave it out.")
        lines = "".join(f"{line}\n" for line in self._service.journal.since(int(position)))
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def change_organisation(self, request: web.Request) -> web.Response:
        change = await body_of(request, OrganisationChange)
        if isinstance(change.max_connections, dict) and (strangers := change.max_connections.keys() - ENDPOINTS.keys()):
            return _problem(400, f"Name endpoints among {', '.join(ENDPOINTS)} in max_connections, not {', '.join(sorted(strangers))}.")
        change.apply(self._organisation)
        return await self.usage(request)

    async def switches(self, _: web.Request) -> web.Response:
        return answer(self._service.switches)

    async def change_switches(self, request: web.Request) -> web.Response:
        self._service.switch(self._service.switches.changed(await body_of(request, dict[str, Any])))
        return await self.switches(request)


def _shown(seat: Seat) -> dict[str, Any]:
    session = seat.session
    return {
        "session": session.number,
        "endpoint": session.endpoint.name,
        "since": seat.since,
        "key": seat.key_number,
        "bytes": session.bytes_received,
        "audio_ms": session.audio_ms,
    }


def _stranger(request: web.Request) -> str | None:
    """Why the asker is none of ours: another machine, or a page in a browser that found a name for this one (DNS rebinding)."""
    if not (request.remote and ipaddress.ip_address(request.remote).is_loopback):
        return "Ask from the machine that the server runs on."
    if _name(request.host) not in LOOPBACK_NAMES:
        return "Call the server by 127.0.0.1 or localhost."
    if request.headers.get(hdrs.ORIGIN, f"http://{request.host}") != f"http://{request.host}":
        return "Ask from a program, not from a page of another origin."
    return None


def _name(host: str) -> str | None:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _problem(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": sentence}), content_type="application/json")
