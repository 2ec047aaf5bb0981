"""What a run is of, in a few words each: GPU and model, replicas, requests, the load offered, the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from llmsim.metrics import parse_slo
from llmsim.runs.engine_settings import engine_words
from llmsim.runs.replica_groups import model_and_gpus
from llmsim.traces.distributions import DistributionSpec

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline

FACTS = SERVED, ENGINE, REPLICAS, REQUESTS, OFFERED, SLO = (
    "GPU and model", "engine", "replicas", "requests", "offered", "SLO"
)  # fmt: skip
"""The facts of a run, in the order in which they are told."""
OPEN = ("poisson", "gamma", "constant", "bursts", "on_off")


def config_of(result: Headline) -> dict[str, Any]:
    """The run's description as a mapping; empty if the result holds none."""
    config = result.manifest.get("config", {})
    loaded = yaml.safe_load(config) if isinstance(config, str) else config
    return dict(loaded) if isinstance(loaded, Mapping) else {}


def facts(result: Headline) -> dict[str, str]:
    """The facts of a run; those that its description does not hold are left out."""
    manifest = result.manifest
    used = manifest.get("calibrations") or [manifest.get("calibration") or {}]
    names = [str(one["name"]) for one in used if one.get("name")]
    return facts_of(config_of(result), manifest.get("workload") or {}, names, result.summary)


def facts_of(
    config: Mapping[str, Any],
    workload: Mapping[str, Any] | None = None,
    calibrations: Sequence[str] = (),
    summary: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The facts in a run's description; `workload` is what the manifest says of its requests, `calibrations` names."""
    wanted, drawn = config.get("workload") or {}, workload or {}
    found = {
        SERVED: _served(config, calibrations),
        ENGINE: engine_words(summary or {}) or _engine(config),
        REPLICAS: _replicas(config, calibrations),
    }
    if wanted:
        found |= {REQUESTS: _requests(wanted, drawn), OFFERED: offered(wanted, drawn, summary or {}), SLO: _slo(config)}
    return {name: words for name, words in found.items() if words}


def setting(results: Sequence[Headline]) -> str:
    """The facts that all these runs share, in one line; those that differ are in the runs' names (labels)."""
    return told(shared_facts([facts(result) for result in results]))


def shared_facts(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Those of the facts that are the same in all runs."""
    return {name: words for name, words in each[0].items() if all(found.get(name) == words for found in each)}


def told(found: Mapping[str, str]) -> str:
    """Facts in one line."""
    return "; ".join(
        f"{name} {words}" if (name == SLO and words != NO_SLO) or (name == OFFERED and "requests/s" in words) else words
        for name, words in found.items()
    )


NO_SLO = "no SLO"


def device(calibration: str) -> str:
    """`h100/llama-3.1-70b-tp4` as 'llama-3.1-70b on 4 x h100'; a name without a device as it is."""
    card, slash, name = calibration.rpartition("/")
    model, gpus = model_and_gpus(name)
    if not slash or name.endswith(".json"):
        return calibration
    return f"{model} on {gpus} x {card}" if gpus > 1 else f"{model} on {card}"


def _served(config: Mapping[str, Any], names: Sequence[str]) -> str:
    if "endpoint" in config:
        return f"{config.get('model')} at {config['endpoint']}"
    groups = (config.get("cluster") or {}).get("groups") or []
    given = [group.get("calibration") or config.get("calibration") for group in groups] or [config.get("calibration")]
    known = list(names) if len(names) == len(dict.fromkeys(given)) else [str(name) for name in given if name]
    return ", ".join(dict.fromkeys(device(name) for name in known))


def _engine(config: Mapping[str, Any]) -> str:
    """The engines that are named, without what their names settled."""
    groups = (config.get("cluster") or {}).get("groups") or [{}]
    each = [(group.get("engine") or config.get("engine") or {}).get("name") for group in groups]
    return " and ".join(dict.fromkeys(str(name or "no named engine") for name in each)) if any(each) else ""


def _replicas(config: Mapping[str, Any], names: Sequence[str]) -> str:
    cluster = config.get("cluster") or {}
    if groups := cluster.get("groups"):
        counts = ", ".join(str(group.get("replicas", 1)) for group in groups)
        come_and_go = any(group.get("schedule") for group in groups)
        words = f"replicas that come and go, at first {counts}" if come_and_go else f"groups of {counts} replicas"
        return f"{words}, {_policy(cluster.get('router'))}"
    if "calibration" not in config:
        return ""
    count = int(cluster.get("replicas") or 1)
    return "1 replica" if count == 1 else f"{count} replicas, {_policy(cluster.get('router'))}"


def _policy(choice: object) -> str:
    return str(choice.get("name")) if isinstance(choice, Mapping) else str(choice or "round_robin")


def _requests(wanted: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    count = drawn.get("num_requests") or wanted.get("num_requests")
    many = "the requests" if count is None else f"{count:,} requests"
    return f"{many} {'with' if (wanted.get('lengths') or {}).get('kind') == 'synthetic' else 'of'} {lengths(wanted)}"


def lengths(wanted: Mapping[str, Any]) -> str:
    """Where the lengths come from: 'azure-conv', or 'prompts of 1,500 tokens, outputs of 300 tokens'."""
    told_of = wanted.get("lengths") or {}
    if told_of.get("kind") == "synthetic":
        prompt, output = (DistributionSpec(**told_of[name]) for name in ("prompt", "output"))
        return f"prompts of {prompt.words()}, outputs of {output.words()}"
    trace = PurePath(str(wanted.get("trace"))).name
    return trace if told_of.get("kind", "trace") == "trace" else f"{trace} ({told_of['kind']})"


def offered(wanted: Mapping[str, Any], drawn: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The load that was put on: its rate and process, or how many were outstanding."""
    arrivals = wanted.get("arrivals") or {}
    kind, rate = arrivals.get("kind", "trace"), arrivals.get("rate")
    if kind == "closed_loop":
        return f"{arrivals.get('max_concurrency')} outstanding (closed loop)"
    if kind == "all_at_once" or str(rate) in ("inf", ".inf"):
        return "all at once"
    process = "the trace's arrivals" if kind == "trace" else kind
    found = drawn.get("mean_rate") if summary.get("offered_rate") is None else summary["offered_rate"]
    if found is None:
        return f"{rate:g} requests/s ({process})" if rate else process
    asked = f", rate {rate:g}" if rate else ""
    return f"{found:.3g} requests/s ({process}{asked})"


def _slo(config: Mapping[str, Any]) -> str:
    known = parse_slo([str(one) for one in config.get("slo") or ()]).limits()
    limits = [f"{name.upper()} {ms:g} ms" for name, ms in known.items()]
    classes = [found for one in (config.get("workload") or {}).get("classes") or () if (found := _class(one))]
    return ", ".join(limits) + ("; " if limits and classes else "") + "; ".join(classes) or NO_SLO


def _class(one: Mapping[str, Any]) -> str:
    targets = ", ".join(_targets(one))
    return f"{one.get('name')} {targets}" if targets else ""


def _targets(one: Mapping[str, Any]) -> Iterator[str]:
    for key in ("ttft_s", "tbt_s", "ttlt_s"):
        if one.get(key) is not None:
            yield f"{key.removesuffix('_s').upper()} {one[key]:g} s"
