"""The policy that a named engine implies: put where none is given; any other beside it is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmsim.errors import ConfigError
from llmsim.spec.cluster_spec import EngineSpec, GroupSpec
from llmsim.spec.engines import ENGINES, POLICY, engine_defaults
from llmsim.spec.registry import BUILT_IN, as_mapping

DEFAULT_SCHEDULER = "sarathi"
"""The policy of a run that names neither a scheduler nor an engine."""
Choice = str | dict[str, Any]


def with_policies(
    scheduler: Choice | None, engine: EngineSpec, groups: Sequence[GroupSpec]
) -> tuple[Choice, tuple[GroupSpec, ...]]:
    """The scheduler of a run (None: not given) and its groups, with what their engines imply.

    Raises ConfigError where scheduler and engine contradict each other, and where a group's engine would silently
    take the place of a named one.
    """
    given = scheduler is not None
    chosen: Choice = scheduler if scheduler is not None else POLICY if engine.name else DEFAULT_SCHEDULER
    check_policy(engine.name, chosen)
    settled = []
    for at, group in enumerate(groups):
        where = f"cluster.groups.{at}."
        own = group.engine or engine
        if engine.name is not None and own.name is None:
            raise ConfigError(
                f"{where}engine names no engine but the run's engine.name is {engine.name}, and a group's engine takes "
                f"the place of the whole of the run's; give the group's engine a name too, or name engines in the "
                "groups only"
            )
        if own.name is not None and engine.name is None and group.scheduler is None and not given:
            group = replace(group, scheduler=POLICY)
        check_policy(own.name, group.scheduler or chosen, where)
        settled.append(group)
    return chosen, tuple(settled)


def names_engine(engine: EngineSpec, groups: Sequence[GroupSpec]) -> bool:
    """Whether a run's engine, or that of a group, has a name."""
    return any(one.name for one in (engine, *(group.engine for group in groups)) if one is not None)


def check_policy(name: str | None, scheduler: Any, where: str = "") -> None:
    """ConfigError if the policy, or the version it is given, is not that of the engine; `where` begins the keys."""
    if name is None:
        return
    if not isinstance(scheduler, str | Mapping):
        raise ConfigError(
            f"{where}engine.name is {name} but the scheduler is an object ({scheduler!r}), whose settings are all its "
            f"own; give the scheduler's name and the options that you want, or leave engine.name out"
        )
    mapping = as_mapping("scheduler", scheduler)
    if mapping["name"] not in (POLICY, BUILT_IN["scheduler"][POLICY]):
        raise ConfigError(
            f"{where}scheduler is {mapping['name']!r} but engine.name is {name}, whose policy is {POLICY}; leave the "
            f"scheduler out, give {POLICY} with options of your own, or leave engine.name out (--engine)"
        )
    version = str(mapping.get("version", engine_defaults(name).version))
    if version != engine_defaults(name).version:
        raise ConfigError(
            f"{where}scheduler has version={version} but engine.name is {name}; leave version out, or name the engine "
            f"that is meant: {', '.join(ENGINES)}"
        )
