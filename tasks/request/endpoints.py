"""The endpoint that a task was asked to use, if it is one for it."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import WrongTaskType
from penstock.workers.runtime import Runtime


async def endpoint_for(task: str, task_types: Sequence[TaskType], endpoint_id: str, runtime: Runtime) -> Endpoint:
    """Return an endpoint.

    Args:
        task: the task's name, for the message.
        task_types: those that the task can use.
        endpoint_id: the inference endpoint's id.
        runtime: knows the endpoints.

    Raises:
        EndpointNotFound: there is none of this id.
        WrongTaskType: it is none for this task.
    """
    endpoint = await runtime.endpoints.get_async(endpoint_id)
    if endpoint.task_type not in task_types:
        raise WrongTaskType(
            f"[{endpoint_id}] is a {endpoint.task_type} endpoint: `{task}` needs one of type "
            f"{' or '.join(task_types)}; see `penstock endpoint list`"
        )
    return endpoint
