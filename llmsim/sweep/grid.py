"""A grid file as data: a base run, the fields that vary, the seeds, and the variant the others are held against.

::

    base: run.yaml                      # or the run itself, as a mapping
    grid:                               # every combination; the last field changes fastest
      scheduler: [vllm_v1, sarathi]
      workload.arrivals.rate: [1, 2, 4]
    zip:                                # fields that change together
      cluster.replicas: [1, 2]
      engine.num_blocks: [8000, 6000]
    seeds: 5                            # or a list
    reference: {scheduler: vllm_v1}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsim.errors import ConfigError, did_you_mean
from llmsim.spec.run_spec import anchor_paths, apply_overrides, read_run, read_yaml
from llmsim.sweep.values import same, values_of

KEYS = ("name", "base", "grid", "zip", "seeds", "reference")
MOST_SEEDS = 100_000

Group = dict[str, list[Any]]
"""Fields that change together, and their values: lists of one length."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What varies over what. `where` names the file in errors; paths in its values are relative to `folder`.

    `base` is a run as YAML holds it. Each group is one direction of the product. `reference` holds, for each group,
    the index of the reference's values, or None where points are compared with those that have the same values.
    """

    name: str
    where: str
    folder: Path
    base: dict[str, Any]
    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    reference: tuple[int | None, ...]

    @property
    def fields(self) -> list[str]:
        """The varied fields, in order."""
        return [field for group in self.groups for field in group]

    @property
    def has_reference(self) -> bool:
        """Whether a reference variant is named."""
        return any(index is not None for index in self.reference)


def load_grid(given: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Grid:
    """The grid in a YAML file, or in such a mapping; `overrides` are `a.b=c` lines laid over the base.

    Raises ConfigError, naming the file and the field.
    """
    if isinstance(given, Mapping):
        mapping, where, folder, name = copy.deepcopy(dict(given)), "the grid", Path(), "sweep"
    else:
        mapping, where, folder = read_yaml(given), str(given), Path(given).parent
        name = Path(given).stem
    for key in mapping:
        if key not in KEYS:
            raise ConfigError(f"{where}: a grid has no option {key!r}.{did_you_mean(str(key), KEYS)}{_hint(key)}")
    if "base" not in mapping:
        raise ConfigError(f"{where}: 'base' is missing; give a run as a mapping, or the path of a run's YAML file")
    base = _base(mapping["base"], where, folder)
    apply_overrides(base, overrides)
    groups = _groups(mapping, base, where)
    return Grid(
        name=_name(mapping.get("name", name), where),
        where=where,
        folder=folder,
        base=base,
        groups=groups,
        seeds=_seeds(mapping.get("seeds"), base, where),
        reference=_reference(mapping.get("reference"), groups, where),
    )


def _hint(key: object) -> str:
    """A field of the run at the top of a grid file belongs one level down."""
    text = str(key)
    if "." in text:
        return " A field that varies belongs under grid."
    return " A run goes under base." if text in ("workload", "calibration", "scheduler", "schedulers") else ""


def _name(given: object, where: str) -> str:
    if not isinstance(given, str) or not given or "/" in given or given.startswith("."):
        raise ConfigError(f"{where}: name must be a word, as a folder gets it, but got {given!r}")
    return given


def _base(given: object, where: str, folder: Path) -> dict[str, Any]:
    """The base run; paths in it hold from any working directory."""
    if isinstance(given, str | Path):
        path = folder / given
        if not path.is_file():
            raise ConfigError(f"{where}: base: there is no file {path}; paths in a grid are relative to its file")
        return read_run(path)
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: base must be a run as a mapping, or the path of one, but got {given!r}")
    anchor_paths(given, folder)
    return given


def _groups(mapping: dict[str, Any], base: dict[str, Any], where: str) -> tuple[Group, ...]:
    """One group a field of `grid`, one a mapping of `zip`; `schedulers` of the base vary like a field of the grid."""
    product = _mapping(mapping.get("grid"), f"{where}: grid")
    schedulers = base.pop("schedulers", None)
    if schedulers is not None:
        if "scheduler" in product or "scheduler" in base:
            raise ConfigError(f"{where}: the base has schedulers; give no scheduler beside them, or leave them out")
        product = {"scheduler": schedulers, **product}
    groups = [{field: values_of(values, f"{where}: grid: {field}")} for field, values in product.items()]
    zips = mapping.get("zip") or []
    for at, one in enumerate(zips if isinstance(zips, list) else [zips]):
        name = f"{where}: zip.{at}" if isinstance(zips, list) else f"{where}: zip"
        groups.append(_zipped(_mapping(one, name), name))
    seen: set[str] = set()
    for field in (field for group in groups for field in group):
        if field in seen:
            raise ConfigError(f"{where}: {field} varies twice, in grid and zip; give it once")
        if field == "seed":
            raise ConfigError(f"{where}: seed does not vary like a field, as runs are paired by it; give seeds")
        seen.add(field)
    return tuple(groups)


def _mapping(given: object, at: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"{at} must be a mapping of fields to their values but got {given!r}")
    return given


def _zipped(given: dict[str, Any], at: str) -> Group:
    """Lists of one length; values of one field may repeat, as its partners tell the variants apart."""
    group: Group = {}
    for field, values in given.items():
        repeats = isinstance(values, list) and values
        group[field] = list(values) if repeats else values_of(values, f"{at}: {field}")
    lengths = {field: len(values) for field, values in group.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{field} has {count}" for field, count in lengths.items())
        raise ConfigError(f"{at}: fields that change together need the same number of values, but {found}")
    if not group:
        raise ConfigError(f"{at} must name fields and their values but is empty")
    rows = [same(list(row), at) for row in zip(*group.values(), strict=True)]
    if len(set(rows)) < len(rows):
        raise ConfigError(f"{at}: the same values stand together twice; give each variant once")
    return group


def _seeds(given: object, base: dict[str, Any], where: str) -> tuple[int, ...]:
    """A count (from the base's seed on), a list, or the base's own seed."""
    first = base.get("seed", 0)
    if type(first) is not int or first < 0:
        raise ConfigError(f"{where}: base: seed must be a whole number >= 0 but got {first!r}")
    if given is None:
        return (first,)
    if type(given) is int and 1 <= given <= MOST_SEEDS:
        return tuple(range(first, first + given))
    if isinstance(given, list) and given and all(type(seed) is int and seed >= 0 for seed in given):
        if len(set(given)) < len(given):
            raise ConfigError(f"{where}: seeds must differ but got {given}")
        return tuple(given)
    raise ConfigError(
        f"{where}: seeds must be a count of at least 1, or a list of whole numbers >= 0, but got {given!r}"
    )


def _reference(given: object, groups: tuple[Group, ...], where: str) -> tuple[int | None, ...]:
    """The index of the reference in each group that names it; ConfigError for a field or value that is not varied."""
    wanted = _mapping(given, f"{where}: reference")
    known = {field for group in groups for field in group}
    for field in wanted:
        if field not in known:
            raise ConfigError(f"{where}: reference: {field!r} does not vary.{did_you_mean(field, known)}")
    return tuple(_index(group, wanted, where) for group in groups)


def _index(group: Group, wanted: dict[str, Any], where: str) -> int | None:
    mine = {field: value for field, value in wanted.items() if field in group}
    if not mine:
        return None
    at = f"{where}: reference"
    for index in range(len(next(iter(group.values())))):
        if all(same(group[field][index], at) == same(value, at) for field, value in mine.items()):
            return index
    values = {field: group[field] for field in mine}
    raise ConfigError(f"{at}: {mine} is none of the values that vary, {values}; write it as in the grid")
