"""What a named engine settles of a group of replicas, where the user gives nothing, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.spec.cluster_spec import EngineSpec, at_least
from llmsim.spec.engine_policy import check_policy
from llmsim.spec.engines import EngineDefaults, engine_defaults, gpu_class, sizes_text
from llmsim.spec.registry import as_mapping, checked_options

if TYPE_CHECKING:
    from llmsim.costs.records import Calibration

Settings = dict[str, Any]
_OF_THE_ENGINE = ("block_size", "num_blocks", "max_model_len", "enable_prefix_caching", "async_scheduling")


@dataclass(frozen=True, slots=True)
class Settled:
    """Calibration, engine and scheduler with nothing left open that the engine's name decides, and what to tell."""

    calibration: Calibration
    engine: EngineSpec
    scheduler: Any
    settings: Settings | None


def settled(calibration: Calibration, engine: EngineSpec, scheduler: Any) -> Settled:
    """With the defaults of `engine.name` where nothing is given; without a name as it is, and no settings.

    Batches are padded to the engine's CUDA graphs if the calibration tells padding apart. Raises ConfigError for
    another policy, and for options that the policy lacks.
    """
    if engine.name is None:
        return Settled(calibration, engine, scheduler, None)
    check_policy(engine.name, scheduler)
    mapping, defaults = as_mapping("scheduler", scheduler), engine_defaults(engine.name)
    given = checked_options("scheduler", mapping)
    longest = engine.max_model_len or calibration.max_model_len
    options = {"version": defaults.version, "reserve_full_isl": defaults.reserve_full_isl} | given
    tokens, sequences = _budget(defaults, calibration.device, longest, given)
    options |= {"max_num_batched_tokens": tokens, "max_num_seqs": sequences}
    sizes = defaults.capture_sizes(calibration.device, tokens, sequences)
    whole = replace(
        engine,
        enable_prefix_caching=engine.enable_prefix_caching is not False,
        async_scheduling=engine.async_scheduling is not False,
    )
    policy = {field.name: options.get(field.name, field.default) for field in fields(VllmV1) if field.init}
    settings = {
        "name": engine.name,
        "gpu_class": str(gpu_class(calibration.device)[0]),
        **{name: value for name, value in policy.items() if name not in ("version", "null_block")},
        "enable_prefix_caching": whole.enable_prefix_caching,
        "async_scheduling": whole.async_scheduling,
        "max_model_len": longest,
        "gpu_memory_utilization": defaults.gpu_memory_utilization,
        "kv_memory": _kv_memory(calibration, engine),
        "cudagraph_capture_sizes": sizes_text(sizes),
        "padding": _padding_words(calibration),
        "given": _given(engine, given),
    }
    return Settled(_padded(calibration, sizes), whole, {"name": mapping["name"], **options}, settings)


def _given(engine: EngineSpec, options: Mapping[str, Any]) -> list[str]:
    """Names of what the user settled: options of the policy, then of the engine."""
    named = [name for name in options if name != "version"]
    return [*sorted(named), *(name for name in _OF_THE_ENGINE if getattr(engine, name) is not None)]


def _budget(defaults: EngineDefaults, device: str, longest: int, given: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens and sequences an iteration, bounded by each other as vLLM bounds those that nobody gave."""
    known = {name: given[name] for name in ("max_num_batched_tokens", "max_num_seqs") if name in given}
    at_least(1, **known)
    found, _ = gpu_class(device)
    tokens = known.get("max_num_batched_tokens", defaults.tokens[found])
    sequences = known.get("max_num_seqs", defaults.sequences[found])
    if "max_num_batched_tokens" not in known:
        if not given.get("enable_chunked_prefill", True):
            tokens = max(tokens, longest)
        tokens = min(tokens, sequences * longest)
    if "max_num_seqs" not in known:
        sequences = min(sequences, tokens)
    return tokens, sequences


def _kv_memory(calibration: Calibration, engine: EngineSpec) -> str:
    if engine.num_blocks is not None:
        return "engine.num_blocks, as given; the memory share does not enter"
    return f"as in {calibration.name}, not planned again for this share and budget: {calibration.kv.source}"


def _padding_words(calibration: Calibration) -> str:
    kernels = calibration.batch_time.kernels
    if kernels is not None and kernels.padding:
        return "batches are priced as padded to these sizes"
    return f"the batch times of {calibration.name} do not tell padding apart; they are as measured"


def _padded(calibration: Calibration, sizes: Sequence[int]) -> Calibration:
    """With the engine's sizes of CUDA graphs, if the calibration has any and has others."""
    time = calibration.batch_time
    if time.kernels is None or not time.kernels.padding or time.kernels.padding == tuple(sizes):
        return calibration
    return replace(calibration, batch_time=replace(time, kernels=replace(time.kernels, padding=tuple(sizes))))


def engine_report(each: Sequence[Settings | None]) -> Settings:
    """The settings that held in each group (None: no name), for a summary.

    `engine` if all have the same, else `engines`, one a group; nothing if no group names an engine.
    """
    if not any(each):
        return {}
    if all(one == each[0] for one in each):
        return {"engine": each[0]}
    return {"engines": list(each)}


def engine_words(report: Mapping[str, Any]) -> str:
    """The settings of a summary that decide most, in a line; empty without a named engine."""
    each = report.get("engines") or [report.get("engine")]
    return " and ".join(dict.fromkeys(_words(one) if one else "no named engine" for one in each)) if any(each) else ""


def _words(settings: Mapping[str, Any]) -> str:
    switches = {"enable_prefix_caching": "prefix caching", "async_scheduling": "async scheduling"}
    told = [f"{settings['max_num_batched_tokens']:,} tokens and {settings['max_num_seqs']:,} sequences an iteration"]
    told += [f"{words} {'on' if settings[name] else 'off'}" for name, words in switches.items()]
    told += [f"given: {', '.join(settings['given'])}"] if settings.get("given") else []
    return f"{settings['name']} ({'; '.join(told)})"
