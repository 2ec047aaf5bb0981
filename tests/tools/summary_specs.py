"""Random run specs for compare_summaries.py, drawn from a seed without asking llmsim: both trees get the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml
from summary_clusters import SHAPES, draw_cluster, write_calibrations
from summary_policies import OWN_POLICIES, ROUTERS, SCHEDULERS, draw_policy
from summary_workloads import SOURCES, draw_workload

WAYS = ("memory", "stream", "stream of few values", "command", "command --json", "command --json --stream")
"""How a spec is served: by `simulate`, by `simulate_stream` (also with so few exact values that its percentiles are
estimates), or by `python -m llmsim simulate` with these options."""
WRONG_EVERY = 15
"""One spec of so many has a mistake, so that errors are compared, too."""
INDEX = "specs.json"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A spec that lies in `file` (in the folder of all): how it is served, and what it covers.

    `overrides` are `a.b=c` lines for load_runs or --set; `facts` are names of what was drawn, by kind.
    """

    file: str
    way: str
    overrides: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def draw_specs(count: int, seed: int, folder: Path) -> list[Drawn]:
    """Write `count` specs, and the files that they name, to `folder`; equal arguments write equal bytes.

    The nth spec of a seed does not depend on `count`. Policies, routers, clusters, sources and ways take turns.
    """
    (folder / "policies.py").write_text(OWN_POLICIES)
    write_calibrations(folder)
    drawn = [_draw(number, seed, folder) for number in range(count)]
    (folder / INDEX).write_text(json.dumps([asdict(one) for one in drawn], indent=1))
    return drawn


def read_index(folder: Path) -> list[Drawn]:
    """What `draw_specs` left in `folder`."""
    return [Drawn(**{**one, "overrides": tuple(one["overrides"])}) for one in json.loads((folder / INDEX).read_text())]


def _turn(what: str, choices: Sequence[str], number: int, seed: int) -> str:
    """The choice for spec `number`: every round has all choices once, in an order of its own."""
    round_, at = divmod(number, len(choices))
    return Random(f"{seed}/{what}/{round_}").sample(list(choices), len(choices))[at]


def _draw(number: int, seed: int, folder: Path) -> Drawn:
    rng = Random(f"{seed}/spec/{number}")
    turn = {"scheduler": list(SCHEDULERS), "router": list(ROUTERS), "shape": SHAPES, "source": SOURCES, "way": WAYS}
    facts = {what: _turn(what, choices, number, seed) for what, choices in turn.items()}
    if facts["shape"] == "one":
        del facts["router"]
    rate = rng.choice((1.5, 4.0, 8.0, 16.0))
    count = rng.randint(100, 500)
    path = folder / f"spec-{number:03d}.yaml"
    run = draw_cluster(rng, facts["shape"], facts["scheduler"], facts.get("router", ""), count / rate)
    groups = run.get("cluster", {}).get("groups", ())
    models = list(dict.fromkeys(group["model"] for group in groups if "model" in group))
    engines = [run["engine"], *(group["engine"] for group in groups if "engine" in group)]
    tight = any("num_blocks" in engine for engine in engines)
    workload = draw_workload(rng, facts["source"], count, rate, models or [""], path, clip=tight)
    run = {"name": path.stem, "seed": rng.randint(0, 10**6), "workload": workload, **run, **_options(rng, count / rate)}
    mistaken = number % WRONG_EVERY == WRONG_EVERY // 2
    if rng.random() < 0.25 and not groups and not mistaken:
        run["schedulers"] = [run.pop("scheduler"), draw_policy(rng, rng.choice(list(SCHEDULERS)), SCHEDULERS)]
    if mistaken:
        facts["mistake"] = _turn("mistake", list(MISTAKES), number // WRONG_EVERY, seed)
        MISTAKES[facts["mistake"]](run)
    overrides = (f"seed={rng.randint(0, 99)}", f"engine.watermark={rng.choice((0.01, 0.1))}")
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    way = facts.pop("way")
    return Drawn(path.name, way, overrides[: rng.randint(0, 2)], facts | _facts(run, facts["shape"], tight=tight))


def _options(rng: Random, span_s: float) -> dict[str, Any]:
    """Horizon, warm-up, definitions, SLOs and stepping of a run whose arrivals last about `span_s` seconds."""
    options: dict[str, Any] = {}
    if rng.random() < 0.25:
        options["horizon_s"] = round(span_s * rng.uniform(0.4, 1.3), 3)
    if rng.random() < 0.3:
        options["warmup_s"] = round(span_s * rng.uniform(0.02, 0.3), 3)
    if rng.random() < 0.35:
        options["definitions"] = "slai"
    if rng.random() < 0.4:
        targets = ["ttft:500", "tpot:40", "itl:120", "e2el:15000"]
        options["slo"] = rng.sample(targets, rng.randint(1, 3))
    if rng.random() < 0.3:
        options["step_by_step"] = True
    return options


def _facts(run: dict[str, Any], shape: str, *, tight: bool) -> dict[str, str]:
    """What a spec covers beyond what takes turns."""
    workload, engine = run["workload"], run["engine"]
    facts = {
        "arrivals": workload.get("arrivals", {}).get("kind", "trace"),
        "lengths": workload.get("lengths", {}).get("kind", "trace"),
        "kv": "tight" if tight else "ample",
    }
    also: list[str] = [key for key in ("horizon_s", "warmup_s", "slo", "step_by_step", "schedulers") if key in run]
    also += [key for key in ("classes", "shuffle", "on_bad", "time_scale") if key in workload]
    also += [key for key in ("block_size", "async_scheduling", "startup_lag_s", "watermark") if key in engine]
    also += ["definitions: slai"] if "definitions" in run else []
    also += ["gz"] if str(workload.get("trace")).endswith(".gz") else []
    return facts | {"also": ", ".join(also)}


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda run: run.update(values)


MISTAKES: dict[str, Callable[[dict[str, Any]], None]] = {
    "unknown scheduler": _set(scheduler="sarathy"),
    "unknown option": _set(scheduler="vllm_v1,max_num_sequences=64"),
    "unknown key": _set(warm_up_s=3),
    "unknown calibration": _set(calibration="h100/llama-3.1-9b", cluster={"replicas": 2}),
    "wrong type": _set(seed="seven"),
    "unknown metric": _set(slo=["ttf:300"]),
    "cache too small": lambda run: run["engine"].update(num_blocks=2),
    "outside the box": _set(strict_range=True, calibration="rtx-6000-ada/mistral-7b", cluster={"replicas": 1}),
    "no batch ahead": lambda run: run.update(scheduler="orca", engine={**run["engine"], "async_scheduling": True}),
    "nobody serves the model": lambda run: run["workload"].update(classes=[{"name": "one", "model": "gpt-2"}]),
}
"""Mistakes by name; each changes a spec that is right."""
