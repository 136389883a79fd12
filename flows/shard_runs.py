"""Shards as runs of a deployment: submitted to Prefect, and looked after through its API."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling, Crashed

from flows.submitted import Seen, ShardState
from moderation.errors import ConfigurationError, UnreachableError
from moderation.outcomes import StopCause

ANSWER_SECONDS = 20.0
"""How long Prefect may take for one question. Its client would ask a server that is gone for 71 s."""
_STATES = {
    StateType.SCHEDULED: ShardState.WAITING,
    StateType.PENDING: ShardState.TAKEN,
    StateType.COMPLETED: ShardState.OVER,
    StateType.FAILED: ShardState.OVER,
    StateType.CANCELLED: ShardState.OVER,
    StateType.CRASHED: ShardState.OVER,
}
_LOST: State[Any] = Crashed(message="its worker reports no more")
_STOPPED: State[Any] = Cancelling(message="the run that it is of is stopped")
_STOPS = {cause.value: cause for cause in StopCause if cause is not StopCause.TERMINATED}


class DeployedShardRuns:
    """The runs of the deployment that streams a shard each. parent tells this process's submissions from those of any other."""

    def __init__(self, deployment: str, parent: str, results: str, org: str) -> None:
        self._deployment = deployment
        self._parent = parent
        self._parameters = {"results": results, "org": org}

    async def submit(self, run_id: str, shard: int, number: int) -> str:
        """The id of the flow run. Raises ConfigurationError without the deployment, UnreachableError without an answer."""
        async with _answering() as client:
            try:
                deployment = await client.read_deployment_by_name(self._deployment)
            except ObjectNotFound:
                raise ConfigurationError(
                    f"Prefect has no deployment {self._deployment}, whose runs stream shards: run `make deploy`, or set fan_out to process"
                ) from None
            run = await client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"run_id": run_id, "shard": shard, **self._parameters},
                name=f"{run_id} shard {shard}",
                idempotency_key=f"{run_id}/{shard}/{number}/{self._parent}",
            )
        return str(run.id)

    async def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        """What Prefect knows of flow runs. Raises UnreachableError."""
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(each) for each in ids]))
        async with _answering() as client:
            return {str(run.id): _seen(run) for run in await client.read_flow_runs(flow_run_filter=wanted)}

    async def end(self, ids: Collection[str], *, lost: bool) -> None:
        """Cancel flow runs, which drains them; a lost one has crashed. Raises UnreachableError."""
        async with _answering() as client:
            told = (client.set_flow_run_state(UUID(each), _LOST if lost else _STOPPED, force=lost) for each in ids)
            answers = await asyncio.gather(*told, return_exceptions=True)
            for failed in (answer for answer in answers if isinstance(answer, BaseException)):
                raise failed


def _seen(run: FlowRun) -> Seen:
    if run.state is None:
        return Seen(ShardState.WAITING)
    name = run.state.name or run.state.type.value
    return Seen(_STATES.get(run.state.type, ShardState.RUNNING), run.state.message or name, _STOPS.get(name))


@asynccontextmanager
async def _answering() -> AsyncIterator[PrefectClient]:
    """A client for the block; whatever it raises for want of an answer is an UnreachableError."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
            yield client
    except (TimeoutError, httpx.HTTPError, PrefectException) as error:
        raise UnreachableError(f"Prefect does not answer ({type(error).__name__}): workers go on, and their reports are read") from error
