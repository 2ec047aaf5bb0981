"""From times of kernels to a calibration file: the importers `layer-profile` and `kernels`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from llmsim.calibrate.importers.engines import Engine, engine_named
from llmsim.calibrate.importers.from_kernels import kernel_times
from llmsim.calibrate.importers.from_layers import layer_profile_times
from llmsim.calibrate.importers.gpus import gpu_named
from llmsim.calibrate.importers.kernels import KernelTimes, batch_time, errors
from llmsim.calibrate.importers.options import ImportOptions, host_overhead, kv_memory, length_limit
from llmsim.costs.box import Box, Range
from llmsim.costs.forms import BatchTime
from llmsim.costs.models import ModelConfig, load_model
from llmsim.costs.records import Calibration, EngineTerms, FitErrors, HostOverhead, Provenance
from llmsim.errors import CalibrationError

DEFAULT_ENGINE = "vllm-0.19"


def import_layer_profile(path: Path, options: ImportOptions) -> Calibration:
    """The calibration of the layer profile whose files begin with `path`."""
    model, engine = load_model(options.model), engine_named(options.engine or DEFAULT_ENGINE)
    times, profile = layer_profile_times(
        path, model, gpu_named(options.device), engine, tensor_parallel=options.tp, all_reduce=options.all_reduce
    )
    files = [*profile.files, *([Path(options.all_reduce)] if options.all_reduce and options.tp > 1 else [])]
    notes = (*profile.notes, "Several prompt chunks in one batch: not measured; priced by their tokens and mean keys.")
    return _assembled("layer-profile", path, options, model, times, files, notes)


def import_kernels(path: Path, options: ImportOptions) -> Calibration:
    """The calibration of a model from the kernel tables in the folder `path`."""
    model, engine = load_model(options.model), engine_named(options.engine or DEFAULT_ENGINE)
    held = kernel_times(
        path, model, gpu_named(options.device), engine, tensor_parallel=options.tp, like=options.like
    )
    return _assembled("kernels", path, options, model, held.times, held.files, held.notes)


def _assembled(
    kind: str,
    path: Path,
    options: ImportOptions,
    model: ModelConfig,
    times: KernelTimes,
    files: Sequence[Path],
    notes: Sequence[str],
) -> Calibration:
    engine = times.engine
    in_sample, held_out = errors(times)
    fitted = batch_time(times)
    return Calibration(
        device=options.device,
        model=options.model_name(),
        batch_time=fitted,
        box=_box(times, fitted),
        errors=FitErrors(
            in_sample=in_sample,
            held_out=held_out,
            note="Whole iterations with each measured batch of attention in every layer, against the sum of their "
            "kernels; held out: fifths of the attention batches and of the token counts. Not against an engine.",
        ),
        host_overhead=host_overhead(options, "the host") if options.host_us else _hidden(engine),
        kv=kv_memory(options),
        limit=length_limit(options),
        engine=EngineTerms(
            name=engine.name,
            async_scheduling=engine.async_scheduling,
            source=engine.source,
            checked=options.checked,
        ),
        provenance=Provenance(
            source=f"{SOURCES[kind]}: " + "; ".join(f"{file.name} (sha256 {_digest(file)[:12]})" for file in files),
            date=date.today().isoformat(),
            command=options.command(kind, path),
            licence=LICENCES[kind],
            notes=tuple(note for note in notes if note),
        ),
    )


SOURCES = {"layer-profile": "vLLM layer profile", "kernels": "aiconfigurator kernel tables"}
LICENCES = {
    "layer-profile": "Measurements: MIT (casys-kaist/LLMServingSim), if they are its own; this file: Apache-2.0",
    "kernels": "Measurements: Apache-2.0 (ai-dynamo/aiconfigurator), if they are its own; this file: Apache-2.0",
}


def _hidden(engine: Engine) -> HostOverhead:
    source = "None: the kernels' own times."
    if engine.async_scheduling:
        source = "The engine schedules ahead: host time passes while the device works. Gaps between kernels are terms."
    return HostOverhead(seconds=0.0, included_in_batch_times=True, source=source)


def _box(times: KernelTimes, fitted: BatchTime) -> Box:
    """What was measured; batches of several prompts are composed by rule, so their number has no range."""
    rows = times.attention
    prompts, decodes = rows[rows["prefill_tokens"] > 0], rows[rows["decode_tokens"] > 0]
    if prompts.empty or decodes.empty:
        raise CalibrationError("the measurements lack prompts or decodes")
    spans = {
        "tokens": times.tokens.index,
        "sequences": times.sequences.index,
        "prefill_tokens": prompts["prefill_tokens"],
        "prefill_context": prompts["prefill_context"],
        "prefill_attention": prompts["prefill_attention"],
        "decode_tokens": decodes["decode_tokens"],
        "decode_context": decodes["decode_context"],
    }
    ranges = tuple(Range(name, int(min(values)), int(max(values))) for name, values in spans.items())
    return Box(ranges=ranges, source="Least and greatest of the measured kernels; each was measured by itself.")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
