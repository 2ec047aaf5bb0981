"""What the policies of a run are called, in tables and file names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec


def scheduler_label(scheduler: Any) -> str:
    """The policy in one line, `name,option=value`; an object by its repr."""
    if isinstance(scheduler, str):
        return scheduler
    if not isinstance(scheduler, Mapping):
        return repr(scheduler)
    options = [f"{key}={value}" for key, value in scheduler.items() if key != "name"]
    return ",".join([str(scheduler["name"]), *options])


def policies_label(spec: RunSpec, scheduler: Any = None) -> str:
    """The policies of a run in one line: the one, or those of its groups in order; `scheduler` replaces them all."""
    if scheduler is not None or not spec.cluster.groups:
        return scheduler_label(scheduler or spec.scheduler)
    each = (scheduler_label(group.scheduler or spec.scheduler) for group in spec.cluster.groups)
    return " + ".join(dict.fromkeys(each))
