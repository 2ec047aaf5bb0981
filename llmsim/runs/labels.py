"""What the policies of a run are called, in tables and file names, and what tells several runs apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llmsim.runs.facts import config_of, lengths
from llmsim.spec import strict

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline
    from llmsim.spec.run_spec import RunSpec

ALWAYS = ("calibration", "engine", "replicas", "lengths", "load")
"""What is told wherever it differs; anything else only where runs have the same name without."""
MOST_OPTIONS = 3
"""Options beside the usual ones that a name tells: more are a table's matter."""


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


def spec_names(specs: Sequence[RunSpec]) -> list[str]:
    """`run_names` of runs to come."""
    return names_of([policies_label(spec) for spec in specs], [strict.dump(spec) for spec in specs])


def run_names(results: Sequence[Headline]) -> list[str]:
    """A different name for each run, of what differs between them: policy, calibration, load, other options."""
    return names_of([result.label for result in results], [config_of(result) for result in results])


def names_of(labels: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """`run_names` of runs by their policies' labels and their descriptions; numbered where nothing differs."""
    what = differing(configs)
    policies = list(labels) if len(labels) == 1 else policy_words(labels)[1]
    always = [words for part, words in what.items() if part in ALWAYS]
    for told in (always, list(what.values())):  # all, where these do not tell the runs apart
        names = [", ".join(word for word in words if word) or labels[0] for words in zip(policies, *told, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"[{at}] {name}" for at, name in enumerate(names, 1)]


def policy_words(labels: Sequence[str]) -> tuple[str, list[str]]:
    """What several policies share, in one line, and what is left of each: the options in which they differ.

    Nothing is shared by policies of different names, or where one has no option that the others lack.
    """
    if len(set(labels)) == 1:
        return labels[0], [""] * len(labels)
    if not all(re.fullmatch(r"[\w./:-]+(,\w+=[^,=]*)*", label) for label in labels):
        return "", list(labels)
    (head, *first), *others = (label.split(",") for label in labels)
    shared = [option for option in first if all(option in other for other in others)]
    rest = [[word for word in label.split(",")[1:] if word not in shared] for label in labels]
    if any(other[0] != head for other in others) or not all(rest):
        return "", list(labels)
    return ",".join([head, *shared]), [",".join(words) for words in rest]


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What differs between runs beside the policy, one text a run: calibration, replicas, requests, load, options."""
    keys = [key for key in differences(configs) if key != "name" and not key.startswith("scheduler")]
    parts = {
        "calibration": ("calibration",),
        "engine": ("engine.name",),
        "replicas": ("cluster.replicas",),
        "lengths": ("workload.trace", "workload.lengths"),
        "load": ("workload.arrivals", "workload.time_scale"),
        "number": ("workload.num_requests",),
        "seed": ("seed",),
    }
    found, taken = {}, set()
    for part, prefixes in parts.items():
        mine = [key for key in keys if any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)]
        if mine:
            taken.update(mine)
            found[part] = [_words(part, config) for config in configs]
    rest = [key for key in keys if key not in taken][:MOST_OPTIONS]
    found |= {key: [f"{key.rpartition('.')[2]}={flat(config).get(key, '-')}" for config in configs] for key in rest}
    return {part: words for part, words in found.items() if len(set(words)) > 1}


def _words(part: str, config: Mapping[str, Any]) -> str:
    """Short: they stand in the first column of a table."""
    workload = config.get("workload") or {}
    if part == "calibration":
        return str(config.get("calibration", "-")).removesuffix(".json")
    if part == "engine":
        return str((config.get("engine") or {}).get("name", "no named engine"))
    if part == "replicas":
        return f"replicas={(config.get('cluster') or {}).get('replicas', 1)}"
    if part == "lengths":
        return lengths(workload) if "lengths" in workload else PurePath(str(workload.get("trace", "-"))).name
    if part == "load":
        return _load(workload)
    return f"{workload.get('num_requests')} requests" if part == "number" else f"seed {config.get('seed')}"


def _load(workload: Mapping[str, Any]) -> str:
    arrivals = workload.get("arrivals") or {}
    kind, rate = arrivals.get("kind", "trace"), arrivals.get("rate")
    if kind == "closed_loop":
        return f"{arrivals.get('max_concurrency')} outstanding"
    others = {key: value for key, value in arrivals.items() if key not in ("kind", "rate")}
    words = f"{rate:g} req/s" if isinstance(rate, int | float) else kind if rate is None else f"{rate} req/s"
    scale = workload.get("time_scale", 1.0)
    words += "" if scale == 1.0 else f", times x {scale:g}"
    if kind in ("poisson", "trace"):
        return words
    return " ".join([kind, *([] if rate is None else [words]), *(f"{key} {value}" for key, value in others.items())])


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Options whose value is not the same in all runs, by dotted name; '-' where a run does not have one."""
    each = [flat(config) for config in configs]
    keys = dict.fromkeys(key for config in each for key in config)
    values = {key: [config.get(key, "-") for config in each] for key in keys}
    return {key: of_runs for key, of_runs in values.items() if len(set(of_runs)) > 1}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Options by dotted name, as text."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif prefix == "" and key == "scheduler":
            found["scheduler.name"] = str(value)  # `scheduler: slai` and `scheduler: {name: slai}` are the same
        else:
            found[prefix + str(key)] = str(value)
    return found
