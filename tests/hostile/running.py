"""Running workflows that mean harm beside one that does not, on one worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durable_monty import DurableMontyError, OrchestratorService, Worker
from support import functions as host

HOST_FUNCTIONS = (host.add, host.identity, host.fail, host.out_of_stock)


def run_all(
    service: OrchestratorService,
    sources: Mapping[str, str],
    functions: Iterable[Any] = HOST_FUNCTIONS,
    executor: Any = None,
) -> dict[str, dict[str, Any]]:
    """Run each source unchecked, between two ordinary workflows, which have to complete.

    Returns:
        What `get_execution` says of each; of one that was refused at its start, `status` `refused` and the error.
    """
    functions = list(functions)
    ordinary = [service.start_execution("await add(1, 2)", [host.add])]
    found: dict[str, dict[str, Any]] = {}
    ids = {}
    for name, source in sources.items():
        try:
            ids[name] = service.start_execution(source, functions, check=False)
        except DurableMontyError as error:
            found[name] = {
                "status": "refused",
                "output": None,
                "error": f"{type(error).__name__}: {error}",
                "note": None,
            }
    ordinary.append(service.start_execution("await add(await add(1, 2), 4)", [host.add]))
    Worker(service, executor, poll_interval=0.05).run(until_complete=True)
    assert [service.get_result(id_) for id_ in ordinary] == [3, 7]
    return found | {name: service.get_execution(id_) for name, id_ in ids.items()}


def is_raised(execution: Mapping[str, Any], kind: str) -> bool:
    """Whether an exception of this type ended it, or refused its start."""
    lines = str(execution["error"]).splitlines()
    return execution["status"] in ("failed", "refused") and any(line.split(":")[0] == kind for line in lines)
