"""A campaign: one model on one device, from the plan to measurements.csv and manifest.json in a folder.

    memory -> probe every case once -> size the plan to the budget -> interleaved repeats -> host overhead

Interrupted, it goes on where it was: the cases are fixed by the manifest, the samples are on disk one by one.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.calibrate.profiling import manifest as manifests
from llmsim.calibrate.profiling.cases import Case, parse_case
from llmsim.calibrate.profiling.device_peaks import device_peaks
from llmsim.calibrate.profiling.grid import Limits
from llmsim.calibrate.profiling.host import measure_host_overhead
from llmsim.calibrate.profiling.measure import Bench, Samples, measure, probe
from llmsim.calibrate.profiling.memory import block_bytes, cpu_plan, gpu_plan, peak_process_bytes
from llmsim.calibrate.profiling.plan import default_plan, fit_to_budget, load_plan
from llmsim.costs.models import ModelConfig, load_model
from llmsim.errors import ConfigError
from llmsim.executors.device import DeviceSpec
from llmsim.executors.device_info import device_name, device_report, library_versions
from llmsim.executors.live import SCRATCH_PAGES
from llmsim.executors.runner import ModelRunner

if TYPE_CHECKING:
    from llmsim.calibrate.profiling.memory import MemoryPlan

MEASUREMENTS = "measurements.csv"
GPU_KV_TOKENS = 600_000
"""KV of the plans for a GPU: what 146 decodes of 4,096 tokens hold."""

Tell = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""


def _silent(_: str, __: int, ___: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to measure. `model` is a shape's name or file; `plan` a plan's, None for the default one.

    `minutes` bounds the time of probing and repeats; `kv_bytes` is the KV cache on a CPU, `utilisation` the share of a
    GPU's memory that an engine may use. `max_tokens` and `max_seqs` bound a batch of the default plan.
    """

    model: str
    out: Path
    spec: DeviceSpec = field(default_factory=DeviceSpec)
    plan: str | None = None
    minutes: float = 3.0
    repeats: int = 5
    max_tokens: int | None = None
    max_seqs: int | None = None
    max_model_len: int | None = None
    kv_bytes: int | None = None
    utilisation: float = 0.9
    restart: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 24 * 60:
            raise ConfigError(f"minutes must be above 0 and at most a day but got {self.minutes:g}")
        if self.repeats < 1:
            raise ConfigError(f"repeats must be at least 1 but got {self.repeats}")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation is a share and must be in (0, 1] but got {self.utilisation}")

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.spec.device.startswith("cuda")


def run_campaign(campaign: Campaign, tell: Tell = _silent) -> Path:
    """Measure, or go on measuring; returns the folder. Raises ConfigError, CapacityError or CalibrationError."""
    began = time.monotonic()
    config = load_model(campaign.model)
    folder = campaign.out
    if campaign.restart:
        for name in (MEASUREMENTS, manifests.NAME):
            (folder / name).unlink(missing_ok=True)
    runner, memory = _prepare(campaign, config)
    same = manifests.identity(config, campaign.spec, runner.linear, library_versions())
    held = manifests.read_manifest(folder)
    if held is not None:
        manifests.check_same(folder, held["identity"], same)
    bench = Bench(runner, campaign.spec.seed)
    if held is None:
        held = _begin(campaign, config, runner, bench, memory, same, tell)
        manifests.write_manifest(folder, held)
    else:
        probe(bench, [parse_case(text) for text in held["cases"]], lambda done, of: tell("warm-up", done, of))
    cases = [parse_case(text) for text in held["cases"]]
    deadline = began + 60 * campaign.minutes
    samples = Samples(folder / MEASUREMENTS)
    watch = lambda done, of: tell("measuring", done, of)  # noqa: E731
    measure(bench, cases, samples, repeats=campaign.repeats, deadline=deadline, progress=watch)
    tell("host overhead", 0, 1)
    manifests.write_manifest(folder, _finish(campaign, runner, held, samples, memory, began))
    return folder


def _prepare(campaign: Campaign, config: ModelConfig) -> tuple[ModelRunner, MemoryPlan | None]:
    """The model on its device with KV for the plan; on a CPU the memory plan, too, as it needs no measurement."""
    if campaign.on_gpu:
        pages = min(GPU_KV_TOKENS, _gpu_room(campaign, config)) // campaign.spec.page_size
        return ModelRunner(config, campaign.spec, pages + SCRATCH_PAGES), None
    memory = cpu_plan(config, campaign.spec, campaign.kv_bytes)
    return ModelRunner(config, campaign.spec, memory.num_blocks + SCRATCH_PAGES), memory


def _gpu_room(campaign: Campaign, config: ModelConfig) -> int:
    """Tokens of KV that certainly fit while measuring: free memory less the weights and a fifth for activations."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch finds no CUDA device; use --device cpu")
    free, _ = torch.cuda.mem_get_info()
    room = free * 0.8 * campaign.utilisation - config.parameters * campaign.spec.value_bytes
    return max(0, int(room / block_bytes(config, campaign.spec))) * campaign.spec.page_size


def limits_of(campaign: Campaign, config: ModelConfig, num_pages: int) -> Limits:
    """What a batch of this campaign may hold at most."""
    tokens, seqs = (8192, 256) if campaign.on_gpu else (512, 128)
    longest = min(config.max_model_len, campaign.max_model_len or config.max_model_len)
    kv_tokens = (num_pages - SCRATCH_PAGES) * campaign.spec.page_size
    if not campaign.on_gpu:
        kv_tokens = min(kv_tokens, 64 * longest)  # a batch of more would take seconds
    return Limits(
        max_model_len=longest,
        kv_tokens=kv_tokens,
        max_tokens=campaign.max_tokens or tokens,
        max_seqs=campaign.max_seqs or seqs,
    )


def _begin(
    campaign: Campaign,
    config: ModelConfig,
    runner: ModelRunner,
    bench: Bench,
    memory: MemoryPlan | None,
    same: dict[str, Any],
    tell: Tell,
) -> dict[str, Any]:
    """Probe the plan, cut it to the budget, and measure a GPU's memory: the manifest of a new campaign."""
    limits = limits_of(campaign, config, runner.num_pages)
    if campaign.plan is not None:
        plan = load_plan(campaign.plan).within(limits)
    else:
        plan = default_plan(
            max_model_len=limits.max_model_len,
            kv_tokens=limits.kv_tokens,
            max_tokens=limits.max_tokens,
            max_seqs=limits.max_seqs,
            seed=campaign.spec.seed,
        )
    probe_began = time.monotonic()
    seconds = probe(bench, plan.cases, lambda done, of: tell("warm-up", done, of))
    if campaign.on_gpu:  # kernels were compiled and clocks rose during the first pass
        seconds = probe(bench, plan.cases, lambda done, of: tell("second warm-up", done, of))
        memory = _measure_memory(campaign, runner, bench, plan.cases)
    budget = 60 * campaign.minutes - (time.monotonic() - probe_began)
    plan = fit_to_budget(plan, seconds, budget, campaign.repeats)
    assert memory is not None
    return {
        "identity": same,
        "device": device_name(campaign.spec.device),
        "plan": {"source": plan.source, "seed": plan.seed, "strata": plan.strata(), "dropped": list(plan.dropped)},
        "limits": {name: getattr(limits, name) for name in ("max_model_len", "kv_tokens", "max_tokens", "max_seqs")},
        "cases": [str(case) for case in plan.cases],
        "memory": memory.as_dict(),
        "model_source": campaign.model,
        "command": shlex.join(["llmsim", *sys.argv[1:]]),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "device_before": device_report(campaign.spec.device),
    }


def _measure_memory(campaign: Campaign, runner: ModelRunner, bench: Bench, cases: Sequence[Case]) -> MemoryPlan:
    """The peak of the batches with the most tokens (activations) and the most sequences (logits)."""
    import torch

    kv = sum(layer.numel() * layer.element_size() for layer in runner.attention.kv)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    weights = sum(p.numel() * p.element_size() for p in runner.model.parameters())
    for size in (lambda case: case.tokens, lambda case: len(case.sequences)):
        bench.run(max(cases, key=size))
    return gpu_plan(runner, torch.cuda.max_memory_allocated() - kv, weights, campaign.utilisation)


def _finish(
    campaign: Campaign,
    runner: ModelRunner,
    held: dict[str, Any],
    samples: Samples,
    memory: MemoryPlan | None,
    began: float,
) -> dict[str, Any]:
    """The manifest with what is known at the end."""
    host = measure_host_overhead(runner, seed=campaign.spec.seed)
    flops, copied = device_peaks(runner)
    whole = min(samples.done[text] for text in held["cases"])
    return {
        **held,
        "samples": {"cases": len(held["cases"]), "repeats_of_every_case": whole, "total": samples.done.total()},
        "host_overhead": host.as_dict() | {"source": str(host)},
        "measured_ceilings": {"flops": flops, "bytes_per_s": copied},
        "peak_process_bytes": peak_process_bytes(),
        "seconds_taken": round(held.get("seconds_taken", 0.0) + time.monotonic() - began, 1),
        "device_after": device_report(campaign.spec.device),
    }
