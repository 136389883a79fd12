"""A stand before an S3 that refuses what a rule says, and passes on the rest."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

OF_THE_HOP = {"host", "connection", "content-length", "transfer-encoding", "expect", "date", "server"}

Answer = Callable[[web.Request], web.StreamResponse | None]
"""What a rule says to a request; None lets it through."""

Send = Callable[[web.Request, web.Response], Awaitable[web.StreamResponse]]
"""How an answer that was passed on reaches the client."""


async def whole(_: web.Request, answer: web.Response) -> web.StreamResponse:
    """As it is."""
    return answer


@asynccontextmanager
async def s3_shim(behind: str, rule: Answer, send: Send) -> AsyncIterator[str]:
    """A stand before an S3 server that answers by a rule, or passes on what it is asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if (refusal := rule(request)) is not None:
            return refusal
        body = await request.read()
        async with session.request(request.method, f"{behind}{request.raw_path}", data=body, headers=_passed_on(request.headers)) as reply:
            passed = web.Response(status=reply.status, headers=_passed_on(reply.headers), body=await reply.read())
        return await send(request, passed)

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in OF_THE_HOP}


def s3_error(status: int, code: str) -> web.Response:
    """A refusal as S3 words it."""
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return web.Response(status=status, body=body.encode(), content_type="application/xml")
