"""Notes of a summary on what its reader may not think of: steps that never came, idle replicas, unchecked prices,
requests over the model's limit, and numbers of the engine that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError, slip_of
from llmsim.schedulers.base import Scheduler
from llmsim.spec.cluster_spec import EngineSpec
from llmsim.spec.engines import gpu_class
from llmsim.units import GIB, SECOND, to_ns

if TYPE_CHECKING:
    from llmsim.core.request import SloClass
    from llmsim.costs.records import Calibration
    from llmsim.engine.replica import Replica
    from llmsim.runs.replica_groups import ReplicaGroup
    from llmsim.spec.cluster_spec import ClusterSpec
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.stream import WorkloadStream
    from llmsim.traces.workload import Workload


def late_steps(cluster: ClusterSpec, end_ns: int, horizon_ns: int | None) -> list[str]:
    """A line if steps of schedules come after the run's end or its horizon (ns): they changed nothing."""
    end_ns = end_ns if horizon_ns is None else min(end_ns, horizon_ns)
    steps = [step.at_s for group in cluster.groups for step in group.schedule or ()]
    late = sum(to_ns(at_s) > end_ns for at_s in steps)
    if not late:
        return []
    if end_ns == horizon_ns:
        why = "horizon_s ends it earlier; raise it"
    else:
        why = "the requests end earlier; raise workload.num_requests"
    named, come = "step" if len(steps) == 1 else "steps", "comes" if late == 1 else "come"
    return [
        f"{late} of {len(steps)} schedule {named} {come} after the run ended ({end_ns / SECOND:.4g} s): {why} "
        f"(arrivals must last to the last step, at {max(steps):g} s), or move the steps"
    ]


def idle_models(members: Mapping[str, Sequence[int]], classes: Sequence[SloClass]) -> list[str]:
    """A line for each model that replicas (`members`, by model) serve but no class of the requests asks for.

    With a single model requests need not name theirs, and all go to it.
    """
    if len(members) < 2:
        return []
    asked = list(dict.fromkeys(c.model for c in classes if c.model is not None))
    lines = []
    for model, replicas in members.items():
        if model not in asked:
            meant = slip_of(model, asked)
            idle = f"{len(replicas)} replica{'s' if len(replicas) > 1 else ''} idle"
            lines.append(f"no request asks for {model} ({idle}).{meant} The requests ask for {', '.join(asked)}")
    return lines


def unproven(calibrations: Sequence[Calibration]) -> list[str]:
    """A line if calibrations of an engine were never held against that engine."""
    names = dict.fromkeys(c.name for c in calibrations if c.engine is not None and c.engine.checked is None)
    if not names:
        return []
    return [
        f"{', '.join(names)}: put together from times of single kernels, never held against a server; where two kinds "
        "of kernel measurements exist they differ by up to 15 % (docs/real-servers.md tells how to check yours)"
    ]


def over_the_limit(replicas: Sequence[Replica]) -> list[str]:
    """Lines on the requests that asked for more tokens than max_model_len: answers cut short, requests refused."""
    each = [replica.lengths for replica in replicas]
    capped, refused = sum(one.capped for one in each), sum(one.refused for one in each)
    limits = {one.max_model_len for one in each if one.capped or one.refused}
    limit = f"max_model_len ({' or '.join(f'{tokens:,}' for tokens in sorted(limits))} tokens)"
    left_out = "--on-long drop leaves such requests out, --on-long clip scales them down"
    lines = []
    if capped:
        lines.append(
            f"{_counted(capped, 'answer')} ended at {limit} before all tokens that were asked for, as vLLM ends them; "
            f"{left_out}"
        )
    if refused:
        lines.append(f"{_counted(refused, 'request')} asked for more tokens than {limit} and got no answer; {left_out}")
    return lines


def nothing_shared() -> list[str]:
    """A line for prefix caching where no request says what its tokens are."""
    return [
        "engine.enable_prefix_caching: the workload says nothing of what requests share, so only preempted requests "
        "find blocks again; a trace with hash_ids says it (workload.hash_block_size)"
    ]


def engine_numbers(groups: Sequence[ReplicaGroup]) -> list[str]:
    """Lines on numbers of the engine that were given where another of the same kind was not, each once."""
    return list(dict.fromkeys(line for group in groups for line in _engine_numbers(group)))


def _engine_numbers(group: ReplicaGroup) -> Iterator[str]:
    engine, kv, name = group.engine, group.calibration.kv, group.calibration.name
    tokens, measured = group.num_blocks * group.block_size, kv.num_blocks * kv.block_size
    token_bytes = kv.block_bytes / kv.block_size
    if group.block_size != kv.block_size and engine.num_blocks is None:
        yield (
            f"engine.block_size={group.block_size}: the {kv.num_blocks:,} KV blocks of {kv.block_size} tokens of "
            f"{name} are {group.num_blocks:,} of {group.block_size}, for the memory stays what it is "
            f"({tokens * token_bytes / GIB:.1f} GiB); give engine.num_blocks too to set it yourself"
        )
    if tokens > measured:
        yield (
            f"engine.num_blocks={group.num_blocks}: {group.num_blocks:,} KV blocks of {group.block_size} tokens take "
            f"{tokens * token_bytes / GIB:.1f} GiB, but {name} has room for {measured * token_bytes / GIB:.1f} GiB"
        )
    longest, native = engine.max_model_len, group.calibration.limit.native_max_model_len
    if longest is not None and longest > tokens:
        yield (
            f"engine.max_model_len={longest}: one such sequence does not fit {group.num_blocks:,} KV blocks of "
            f"{group.block_size} tokens, so vLLM and Sarathi-Serve would not start; {tokens} fits"
        )
    if longest is not None and longest > native:
        yield (
            f"engine.max_model_len={longest} is past the {native:,} positions (max_position_embeddings) that "
            f"{group.calibration.model} was made for: vLLM refuses that, and answers there would be of no use"
        )


def unknown_gpus(groups: Sequence[ReplicaGroup]) -> list[str]:
    """A line for each device that a named engine serves on and whose class nobody knows."""
    devices = dict.fromkeys(group.calibration.device for group in groups if group.settings is not None)
    return [
        f"the memory of the device {device} is not known, so its engine has the defaults of small GPUs, as vLLM where "
        "it cannot read it; give max_num_batched_tokens and max_num_seqs (--scheduler vllm_v1,...) if it has 70 GiB"
        for device in devices
        if not gpu_class(device)[1]
    ]


def idle_watermarks(groups: Sequence[ReplicaGroup], replicas: Sequence[Replica]) -> list[str]:
    """A line for each policy that keeps free what its own options say, if engine.watermark was changed for it."""
    idle: dict[str, float] = {}
    first = 0
    for group in groups:
        policy = replicas[first].scheduler
        first += group.count
        own = not policy.paged or type(policy).reserve_blocks is not Scheduler.reserve_blocks
        if own and group.engine.watermark != EngineSpec().watermark:
            idle[type(policy).__name__] = group.engine.watermark
    return [
        f"engine.watermark={watermark:g} changes nothing under {policy}, which does not look at it"
        + ("; its own is --scheduler vllm_v1,watermark=..." if policy == "VllmV1" else "")
        for policy, watermark in idle.items()
    ]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def refuse_nothing_sent(spec: RunSpec, workload: Workload | WorkloadStream, sent: int) -> None:
    """ConfigError for a run that ended before any of its requests arrived: there is nothing to summarise."""
    if sent or not len(workload):
        return
    span = f"the run ends at {spec.horizon_s:,.10g} s (--horizon)" if spec.horizon_s else "the run ended before"
    came = f", and the first of {len(workload):,} requests arrives at {workload.first_arrival_ns / SECOND:,.10g} s"
    kept = "; or leave out --keep-clock, so that times count from it" if spec.workload.keep_clock else ""
    raise ConfigError(f"no request was sent: {span}{came}; give a later --horizon{kept}")
