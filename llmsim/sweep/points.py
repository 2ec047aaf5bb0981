"""From a grid to its runs: every variant loaded, checked and known by its content, before anything runs."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmsim.errors import ConfigError, LlmsimError
from llmsim.runs.labels import scheduler_label
from llmsim.runs.manifest import versions
from llmsim.runs.replica_groups import groups_of, with_predictor
from llmsim.spec import registry
from llmsim.spec.engine_policy import names_engine
from llmsim.spec.engines import POLICY
from llmsim.spec.run_spec import DEFAULT_SCHEDULER, RunSpec, load_runs, put
from llmsim.sweep.grid import Grid, Group
from llmsim.sweep.inputs import Digests, absolute, content, digests_of

FORMAT = 2
"""Of what is on disk: a change of it makes every point a new one."""
KEY_LENGTH = 24
PATH_FIELDS = ("trace", "calibration")
POLICIES = ("scheduler", "router")


@dataclass(frozen=True, slots=True)
class Task:
    """One run on its way to a worker. `digests` and `version` are what the worker must have, too."""

    key: str
    point: int
    seed: int
    spec: RunSpec
    digests: Digests
    version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All points of a sweep as plain data; the same plan is made from its JSON.

    `points` holds each point's varied values as cells, `keys[point][seed]` the content key of each run, `reference`
    the point that each is compared with (None: no comparison).
    """

    name: str
    fields: list[str]
    points: list[dict[str, Any]]
    seeds: list[int]
    keys: list[list[str]]
    reference: list[int | None]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of(cls, mapping: Mapping[str, Any], where: str) -> Plan:
        """From `as_dict`. Raises ConfigError, naming `where`, for anything else."""
        given = {key: value for key, value in mapping.items() if key != "format"}
        if mapping.get("format") != FORMAT or set(given) != set(cls.__dataclass_fields__):
            raise ConfigError(f"{where}: is no plan of a sweep of format {FORMAT}; run the sweep in a new folder")
        return cls(**given)

    def all_keys(self) -> list[str]:
        """Every run's key once, seed by seed: after the first share of a sweep all points have a first run."""
        return list(dict.fromkeys(keys[at] for at in range(len(self.seeds)) for keys in self.keys))

    def words(self, point: int, seed: int) -> str:
        """Which run this is, for people: its varied values and seed."""
        return ", ".join(f"{field}={value}" for field, value in {**self.points[point], "seed": seed}.items())


def plan_of(grid: Grid) -> tuple[Plan, list[Task]]:
    """The plan and its tasks, in the order of `Plan.all_keys`.

    Raises ConfigError, TraceError or CalibrationError, naming file and variant, for a spec that cannot be run.
    """
    version = versions()["llmsim"]
    indices = list(itertools.product(*(range(_length(group)) for group in grid.groups)))
    cells, keys = [], []
    tasks: dict[str, Task] = {}
    for point, index in enumerate(indices):
        values = {f: vs[at] for group, at in zip(grid.groups, index, strict=True) for f, vs in group.items()}
        cells.append({field: cell(value) for field, value in values.items()})
        spec, digests = _checked(grid, values)
        mine = []
        for seed in grid.seeds:
            seeded = spec.replace(seed=seed)
            key = _key(seeded, digests, version)
            mine.append(key)
            tasks.setdefault(key, Task(key, point, seed, seeded, digests, version))
        keys.append(mine)
    place = {index: point for point, index in enumerate(indices)}
    reference = [_reference(grid, index, place) for index in indices]
    plan = Plan(grid.name, grid.fields, cells, list(grid.seeds), keys, reference)
    return plan, [tasks[key] for key in plan.all_keys()]


def _length(group: Group) -> int:
    return len(next(iter(group.values())))


def _reference(grid: Grid, index: tuple[int, ...], place: dict[tuple[int, ...], int]) -> int | None:
    """The point with the reference's values in the groups that it names, and this point's own in the others."""
    if not grid.has_reference:
        return None
    return place[tuple(own if named is None else named for own, named in zip(index, grid.reference, strict=True))]


def cell(value: Any) -> Any:
    """A value as a cell of a table: policies by their label, other lists and mappings as JSON."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return scheduler_label(value)
    return json.dumps(value)


def _checked(grid: Grid, values: dict[str, Any]) -> tuple[RunSpec, Digests]:
    """The variant's spec with absolute paths, and the digests of what it reads; policies are built once to try."""
    told = ", ".join(f"{field}={cell(value)}" for field, value in values.items())
    where = f"{grid.where} ({told})" if told else grid.where
    mapping = copy.deepcopy(grid.base)
    # A scheduler, then its options; the engine that implies one before.
    for field, value in sorted(values.items(), key=lambda item: (item[0].count("."), not item[0].startswith("engine"))):
        _open_policy(mapping, field)
        try:
            put(mapping, field, copy.deepcopy(_anchored(grid.folder, field, value)))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    (spec,) = load_runs(where, mapping=mapping)
    try:
        for choice in _schedulers(spec):
            registry.build("scheduler", with_predictor(choice))
        registry.build("router", spec.cluster.router)
        spec = absolute(spec)
        return spec, digests_of(spec)
    except LlmsimError as error:
        raise type(error)(f"{where}: {error}") from error


def _schedulers(spec: RunSpec) -> list[Any]:
    """Those of the run and its groups; of named engines with the options that the names settle."""
    groups = spec.cluster.groups
    if names_engine(spec.engine, groups):
        return [group.scheduler for group in groups_of(spec)]
    return [spec.scheduler, *(group.scheduler for group in groups if group.scheduler is not None)]


def _open_policy(mapping: dict[str, Any], field: str) -> None:
    """Make a policy on the way to `field` a mapping: `sarathi,order=spf` has no chunk_size to set, a mapping has."""
    *parents, _ = field.split(".")
    if parents == ["scheduler"]:
        engine = mapping.get("engine")
        named = isinstance(engine, dict) and engine.get("name") is not None
        mapping.setdefault("scheduler", POLICY if named else DEFAULT_SCHEDULER)
    target: Any = mapping
    for part in parents:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
            continue
        if not isinstance(target, dict) or part not in target:
            return
        if part in POLICIES and isinstance(target[part], str):
            target[part] = registry.as_mapping(part, target[part])
        target = target[part]


def _anchored(folder: Path, field: str, value: Any) -> Any:
    """Paths in a grid file are relative to it where such a file exists; else to the working directory."""
    if field.rpartition(".")[2] in PATH_FIELDS and isinstance(value, str) and (folder / value).is_file():
        return str(folder / value)
    return value


def _key(spec: RunSpec, digests: Digests, version: str) -> str:
    text = json.dumps({"format": FORMAT, "llmsim": version, "spec": content(spec, digests)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def shard_of(tasks: list[Task], shard: tuple[int, int] | None) -> list[Task]:
    """The tasks of shard (i, n), i from 1: every n-th, so that shards are as equal as tasks allow.

    Raises ConfigError for a shard that is none.
    """
    if shard is None:
        return tasks
    at, count = shard
    if not 1 <= at <= count:
        raise ConfigError(f"shard must be i/n with i from 1 to n, such as 1/4, but got {at}/{count}")
    return tasks[at - 1 :: count]
