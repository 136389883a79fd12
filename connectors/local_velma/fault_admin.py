"""The script of faults over the admin API: read, replaced and ended while the server runs."""

from aiohttp import web

from connectors.local_velma.admin import answer, body_of
from connectors.local_velma.connection import Service
from connectors.local_velma.fault_script import Scene


def fault_routes(service: Service) -> list[web.RouteDef]:
    """GET gives what is left of the script; PUT begins another one; DELETE ends it. The body and the answers are a Scene."""

    async def read(_: web.Request) -> web.Response:
        return answer(service.faults.scene)

    async def replace(request: web.Request) -> web.Response:
        service.faults.play(await body_of(request, Scene))
        return await read(request)

    async def end(request: web.Request) -> web.Response:
        service.faults.play(Scene())
        return await read(request)

    path = "/admin/faults"
    return [web.get(path, read), web.put(path, replace), web.delete(path, end)]
