"""One run as data: frozen specs, strict YAML both ways, `--set a.b=c` overrides.

Unknown keys, wrong types and duplicate keys are errors; a spec that was loaded is never written to.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmsim.errors import ConfigError
from llmsim.spec import registry, strict
from llmsim.spec.cluster_spec import LONGEST_S, ClusterSpec, EngineSpec, GroupSpec, StepSpec, at_least
from llmsim.spec.engine_policy import DEFAULT_SCHEDULER, with_policies
from llmsim.spec.yaml_text import MOST_BYTES, load_yaml
from llmsim.traces.spec import WorkloadSpec

__all__ = [
    "DEFAULT_SCHEDULER",
    "ClusterSpec",
    "EngineSpec",
    "GroupSpec",
    "RunSpec",
    "StepSpec",
    "apply_override",
    "apply_overrides",
    "as_run",
    "check_percentiles",
    "dump_run",
    "load_runs",
    "put",
    "read_run",
    "read_yaml",
]

DEFINITIONS = ("vllm", "slai")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that decides a run: two equal specs give byte-identical summaries.

    `scheduler` and `cluster.router` are a name (`sarathi`, `file.py:Class`), a line `name,option=value`, or a
    mapping with a name; without a scheduler it is that of the engine that `engine.name` names, else
    DEFAULT_SCHEDULER. `definitions` chooses whose TTFT and TBT are reported (vllm, or the papers' own: slai).
    `slo` are targets as `ttft:200` in milliseconds, for every request. Requests that arrive in the first
    `warmup_s` seconds are left out of the latency figures. `horizon_s` cuts the run. `percentiles` (0 to 100) are those
    that tables show and that the summary has besides its own, of classes and models, too; None: p50, p90 and p99.
    """

    workload: WorkloadSpec
    calibration: str
    name: str = "run"
    scheduler: str | dict[str, Any] = None  # type: ignore[assignment]  # the engine's, or DEFAULT_SCHEDULER
    engine: EngineSpec = field(default_factory=EngineSpec)
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    horizon_s: float | None = None
    warmup_s: float = 0.0
    definitions: str = "vllm"
    slo: tuple[str, ...] = ()
    percentiles: tuple[float, ...] | None = None
    step_by_step: bool = False
    strict_range: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        scheduler, groups = with_policies(self.scheduler, self.engine, self.cluster.groups)
        object.__setattr__(self, "scheduler", scheduler)
        if groups != self.cluster.groups:
            object.__setattr__(self, "cluster", dataclasses.replace(self.cluster, groups=groups))
        at_least(0, seed=self.seed)
        at_least(0, LONGEST_S, warmup_s=self.warmup_s)
        if self.horizon_s is not None and not 0 < self.horizon_s <= LONGEST_S:
            raise ConfigError(
                f"horizon_s must be above 0 and at most {LONGEST_S:g} but got {self.horizon_s}; leave it out for no "
                "horizon"
            )
        check_percentiles(self.percentiles)
        _check_named("scheduler", self.scheduler)
        _check_named("router", self.cluster.router)
        for group in self.cluster.groups:
            _check_named("scheduler", group.scheduler)
        for group in self.cluster.groups:
            _same_semantics(self.engine, group.engine)
        if self.definitions not in DEFINITIONS:
            raise ConfigError(f"definitions must be one of {', '.join(DEFINITIONS)} but got {self.definitions!r}")

    def replace(self, **changes: Any) -> RunSpec:
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)


def check_percentiles(percentiles: Sequence[float] | None) -> None:
    """ConfigError unless they are numbers from 0 to 100, each once; None is none asked for."""
    if percentiles is None:
        return
    wrong = [p for p in percentiles if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 100]
    twice = [p for i, p in enumerate(percentiles) if p in percentiles[:i]]
    if wrong or twice or not len(percentiles):
        got = f"{wrong[0]!r}" if wrong else f"{twice[0]:g} twice" if twice else "none"
        raise ConfigError(
            f"percentiles must be numbers from 0 to 100, each once, but got {got}; give for instance [50, 95, 99], or "
            "leave it out for 50, 90 and 99"
        )


def _check_named(kind: str, choice: object) -> None:
    if isinstance(choice, Mapping) and not isinstance(choice.get("name"), str):
        known = ", ".join(registry.names(kind))
        raise ConfigError(f"{kind} needs a name but got {dict(choice)!r:.200}; write {{name: ...}}, one of {known}")


def _same_semantics(engine: EngineSpec, other: EngineSpec | None) -> None:
    for name in ("first_token_at_prefill_end", "preempted_request_regenerates_output"):
        if other is not None and getattr(engine, name) != getattr(other, name):
            raise ConfigError(
                f"cluster.groups: engine.{name} must be the same in all groups, as it decides what a token is, but "
                f"got {getattr(other, name)} where the run has {getattr(engine, name)}"
            )


def load_runs(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    mapping: Mapping[str, Any] | None = None,
    *,
    where: str = "command line",
) -> list[RunSpec]:
    """The runs that a YAML file describes, one for each of its `schedulers` (or for its `scheduler`).

    `overrides` are `a.b=c` lines applied last. `mapping` stands for what the file holds, where the caller has read it
    (read_run) and changed it; `where` is its name in errors. Raises ConfigError, naming the file and the key.
    """
    where = where if path is None else str(path)
    if mapping is None:
        mapping = {} if path is None else read_run(path)
    mapping = copy.deepcopy(dict(mapping))
    apply_overrides(mapping, overrides)
    schedulers = mapping.pop("schedulers", None)
    if schedulers is not None and "scheduler" in mapping:
        raise ConfigError(f"{where}: give scheduler or schedulers, not both")
    if schedulers is not None and (not isinstance(schedulers, list) or not schedulers):
        raise ConfigError(f"{where}: schedulers must be a list with at least one scheduler but got {schedulers!r}")
    for required, option in (("workload", "--trace"), ("calibration", "--calibration")):
        if required not in mapping:
            raise ConfigError(f"{where}: {required!r} is missing; give it in the YAML file or as {option}")
    variants = [{}] if schedulers is None else [{"scheduler": scheduler} for scheduler in schedulers]
    return [strict.load(RunSpec, {**mapping, **variant}, where) for variant in variants]


def as_run(run: RunSpec | str | Path | Mapping[str, Any]) -> RunSpec:
    """A run that is one, or is described by a YAML file or a mapping; ConfigError if several are described there."""
    if isinstance(run, RunSpec):
        return run
    if not isinstance(run, str | Path | Mapping):
        raise ConfigError(f"a run is a RunSpec, a YAML file or a mapping but got a {type(run).__name__}: {run!r}")
    runs = load_runs(mapping=run, where="the mapping") if isinstance(run, Mapping) else load_runs(run)
    if len(runs) > 1:
        where = "the mapping" if isinstance(run, Mapping) else str(run)
        source = "mapping=..." if isinstance(run, Mapping) else repr(str(run))
        raise ConfigError(
            f"{where}: describes {len(runs)} runs, one for each of its schedulers, where one is wanted; "
            f"compare(load_runs({source})) runs them all, load_runs({source})[0] is the first"
        )
    return runs[0]


def dump_run(spec: RunSpec) -> str:
    """YAML that loads back to an equal spec."""
    return yaml.safe_dump(strict.dump(spec), sort_keys=False, allow_unicode=True)


def read_run(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; paths of files beside it are made to hold from any working directory."""
    mapping = read_yaml(path)
    anchor_paths(mapping, Path(path).parent)
    return mapping


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError for anything else, duplicate keys included."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no YAML: byte {error.start} is not UTF-8; save it as UTF-8") from error
    loaded = load_yaml(text, str(path))
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold a mapping (key: value lines) but holds {type(loaded).__name__}")
    return loaded


def apply_overrides(mapping: dict[str, Any], lines: Sequence[str]) -> None:
    """Lay `a.b=c` lines over the mapping. ConfigError for a key that two of them set."""
    given: dict[str, str] = {}
    for line in lines:
        key = line.partition("=")[0].strip()
        if key in given:
            raise ConfigError(f"--set gives {key} twice ({given[key]} and {line}); give it once")
        given[key] = line
        apply_override(mapping, line)


def apply_override(mapping: dict[str, Any], line: str) -> None:
    """Set `a.b.0.c=value` in nested mappings and lists; the value is read as YAML."""
    key, equals, text = line.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, for instance engine.num_blocks=8000, but got {line!r}")
    try:
        value = load_yaml(text, "it")
    except ConfigError as error:
        raise ConfigError(f"--set {line:.200}: the value is no YAML of a run, {error}") from None
    put(mapping, key, value)


def put(mapping: dict[str, Any], key: str, value: object) -> None:
    """Set the dotted `key` in nested mappings and lists, making mappings that are missing."""
    *parents, last = key.split(".")
    target: Any = mapping
    for part in parents:
        target = target[_index(part, len(target), key)] if isinstance(target, list) else target.setdefault(part, {})
        if not isinstance(target, dict | list):
            raise ConfigError(f"{key}: {part!r} holds {target!r}, which has no keys")
    if isinstance(target, list):
        target[_index(last, len(target), key)] = value
    else:
        target[last] = value


def _index(part: str, length: int, key: str) -> int:
    if not part.isdigit() or int(part) >= length:
        some = "there is one (0)" if length == 1 else f"there are {length} (0 to {length - 1})"
        there = some if length else "it is empty"
        raise ConfigError(f"{key}: {part!r} is no place in the list: {there}")
    return int(part)


def anchor_paths(mapping: dict[str, Any], folder: Path) -> None:
    """Paths in a YAML file are relative to it where such a file exists; else to the working directory."""
    cluster = mapping.get("cluster")
    groups = cluster.get("groups") if isinstance(cluster, dict) else None
    holders = [(mapping.get("workload"), "trace"), (mapping, "calibration")]
    holders += [(group, "calibration") for group in groups] if isinstance(groups, list) else []
    for holder, key in holders:
        if isinstance(holder, dict) and isinstance(holder.get(key), str) and (folder / holder[key]).is_file():
            holder[key] = str(folder / holder[key])
