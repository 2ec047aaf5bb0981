"""`vllm-forward`: a calibration from the JSON that `vllm bench forward --output-json FILE` writes.

Read is the layout of vLLM 0.33.0 (vllm/benchmarks/forward/main.py), the first release with that command: a list of

    {"case": NAME, "requests": [{"query_len", "kv_len", "num_draft_tokens", "chunked"}, ...], "median_us": ...,
     "ranks": [{"num_tokens", "kv_blocks", "timing_scope", "latency_us": {"timer", "median", "samples_us", ...}, ...}]}

with lengths in tokens as they were run (after --kv-len-jitter) and times in microseconds, the slowest rank's of every
replay. The file names neither version, model nor device. A case is one CUDA graph of exactly this batch: no padding to
captured sizes, no gaps of single launches, and neither LM head, sampling nor host time. What this llmsim would not
simulate is refused: draft tokens, drafters, pipelines, and prefixes that a model with a window computes again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llmsim.calibrate.fitting.features import fit_table, spread_warnings
from llmsim.calibrate.fitting.selection import fit_batch_time
from llmsim.calibrate.importers.options import ImportOptions, host_overhead, kv_memory, length_limit
from llmsim.calibrate.profiling.cases import Case, Sequence
from llmsim.calibrate.profiling.plan import MIN_CASES
from llmsim.costs.fields import Section
from llmsim.costs.records import Calibration, Provenance
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from llmsim.calibrate.fitting.fit_result import BatchTimeFit

LAYOUT = "vLLM 0.33.0"
TIMERS = ("graph_events", "graph_events_rank_max")
"""Timers of one forward at a time, on one rank and on several; that of a pipeline spans forwards that overlap."""
ROUNDING_US = 0.02
"""samples_us is rounded to two places, the median is not."""
NOT_IN_THE_TIMES = "the LM head, sampling and the host's own work"


@dataclass(frozen=True, slots=True)
class Forward:
    """One case of the file: the batch, its replays in seconds, KV blocks (the null block included), number of ranks."""

    case: Case
    seconds: tuple[float, ...]
    kv_blocks: int
    ranks: int
    finite: bool


def import_vllm_forward(path: Path, options: ImportOptions) -> Calibration:
    """The calibration that the file at `path` and the options give; notes say what a reader must know.

    Raises CalibrationError for another layout, too few cases, batches that cannot be simulated, and options that are
    needed and missing; ConfigError and CapacityError as `ImportOptions.shape` and `kv_memory` do.
    """
    _refuse_unused(options)
    host = host_overhead(options, NOT_IN_THE_TIMES)  # what is missing is said before seconds go into a fit
    kv, limit = kv_memory(options), length_limit(options)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error})") from error
    found = read_forward(path, content)
    _check(path, found, options)
    table = forward_table(found)
    if len(table) < MIN_CASES:
        raise CalibrationError(
            f"{path}: holds {len(table)} different cases but a fit needs at least {MIN_CASES}; run vllm bench forward "
            "with more --case options: decodes, prompts, chunks and mixtures (docs/calibrations.md has a set)"
        )
    fit = fit_batch_time(table)
    return Calibration(
        device=options.device,
        model=options.model_name(),
        batch_time=fit.batch_time,
        box=fit.box,
        errors=fit.errors,
        host_overhead=host,
        kv=kv,
        limit=limit,
        provenance=_provenance(path, content, found, table, fit, options),
    )


def read_forward(path: Path, content: bytes) -> list[Forward]:
    """The cases in `content`, the bytes of the file at `path`; CalibrationError says what is there instead."""
    try:
        held = json.loads(content)
    except ValueError as error:
        raise CalibrationError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(held, list):
        what = f"an object with {', '.join(held)}" if isinstance(held, dict) else f"{type(held).__name__} {held!r:.60}"
        raise CalibrationError(
            f"{path}: must be the list of cases that `vllm bench forward --output-json` of {LAYOUT} writes, but is "
            f"{what}"
        )
    return [_forward(section) for section in Section(path, "", {"cases": held}).sections("cases")]


def forward_table(found: list[Forward]) -> pd.DataFrame:
    """The table of a fit (`fitting.features`): one row a case, the median of its replays in seconds."""
    rows = [(str(one.case), seconds) for one in found for seconds in one.seconds]
    return fit_table(pd.DataFrame(rows, columns=["case", "seconds"]))


def _forward(section: Section) -> Forward:
    median = section.number("median_us", minimum=1e-3)
    ranks = section.sections("ranks")
    latency = ranks[0].section("latency_us")
    timer, scope = latency.text("timer"), ranks[0].text("timing_scope")
    if timer not in TIMERS:
        latency.fail(
            "timer",
            f"is {timer!r}, but {LAYOUT} times single forwards with {' or '.join(TIMERS)}. A pipeline's forwards "
            "overlap, and a replica here runs one batch at a time: measure with --pipeline-parallel-size 1",
        )
    if scope != "target_only":
        ranks[0].fail("timing_scope", f"is {scope!r}; a drafter is not simulated: measure with --exclude-drafter")
    samples = latency.numbers("samples_us")
    if not samples or min(samples) <= 0:
        latency.fail("samples_us", "must hold times above 0")
    if abs(float(pd.Series(samples).median()) - median) > ROUNDING_US or latency.number("median") != median:
        section.fail("median_us", f"is {median:g}, not the median of rank 0's samples_us as in {LAYOUT}'s layout")
    case = _case(section)
    tokens = ranks[0].whole("num_tokens")
    if tokens != case.tokens:
        ranks[0].fail(
            "num_tokens",
            f"is {tokens}, but its requests have {case.tokens} query tokens: a model with a sliding window computes "
            "part of a cached prefix again. Mark the case's prompts as chunks (c), whose prefix is not computed again",
        )
    return Forward(
        case=case,
        seconds=tuple(sample / 1e6 for sample in samples),
        kv_blocks=ranks[0].whole("kv_blocks"),
        ranks=len(ranks),
        finite=not ranks[0].has("finite") or ranks[0].flag("finite"),
    )


def _case(section: Section) -> Case:
    """The batch; names that our grammar cannot hold get '_' for what is in the way."""
    name = re.sub(r"[^A-Za-z0-9_.:/+-]+", "_", section.text("case"))
    return Case(name, tuple(_sequence(request) for request in section.sections("requests")))


def _sequence(request: Section) -> Sequence:
    queries, keys = request.whole("query_len", minimum=1), request.whole("kv_len", minimum=1)
    drafts, chunked = request.whole("num_draft_tokens"), request.flag("chunked")
    request.close()
    if keys < queries:
        request.fail("kv_len", f"is {keys}, less than query_len, {queries}, which it includes")
    if drafts:
        request.fail(
            "num_draft_tokens",
            f"is {drafts}; speculative decoding is not simulated: measure cases without draft tokens (:D)",
        )
    return Sequence(queries, keys, chunked)


def _refuse_unused(options: ImportOptions) -> None:
    """An option that would change nothing is a misunderstanding."""
    for name in ("like", "all_reduce"):
        if getattr(options, name) is not None:
            raise CalibrationError(f"--{name.replace('_', '-')} changes nothing with --from vllm-forward; leave it out")
    if options.engine is not None and options.num_blocks is not None:
        raise CalibrationError(
            "with --from vllm-forward, --engine only says what share of the memory a plan may use, and --num-blocks "
            "replaces the plan; leave one of them out"
        )


def _check(path: Path, found: list[Forward], options: ImportOptions) -> None:
    """Refuse options that the file contradicts: the degree of tensor parallelism, and the size of a KV block."""
    ranks = sorted({one.ranks for one in found})
    if len(ranks) > 1 or ranks[0] % options.tp:
        raise CalibrationError(
            f"{path}: was measured on {' or '.join(map(str, ranks))} ranks, which --tp {options.tp} does not divide; "
            "give the --tensor-parallel-size of the measurement"
        )
    if _blocks_fit(found, options.block_size):
        return
    others = [size for size in (1, 8, 16, 32, 48, 64, 128, 256, 512, 1024) if _blocks_fit(found, size)]
    if others:
        raise CalibrationError(
            f"{path}: its kv_blocks are those of blocks of {others[0]} tokens, not of {options.block_size}; give "
            f"--block-size {others[0]}"
        )


def _blocks_fit(found: list[Forward], block_size: int) -> bool:
    """Whether every case fills as many blocks as it would in one pool of such blocks, the null block included."""
    return all(one.kv_blocks == 1 + one.case.blocks(block_size) for one in found)


def _provenance(
    path: Path, content: bytes, found: list[Forward], table: pd.DataFrame, fit: BatchTimeFit, options: ImportOptions
) -> Provenance:
    replays = sum(len(one.seconds) for one in found)
    return Provenance(
        source=(
            f"vllm bench forward ({LAYOUT}'s layout; the file names no version): {len(table)} cases, medians of "
            f"{replays:,} replays of CUDA graphs, on {found[0].ranks} rank(s); {path.name}, sha256 "
            f"{hashlib.sha256(content).hexdigest()}."
        ),
        date=datetime.now(UTC).date().isoformat(),
        command=options.command("vllm-forward", path),
        licence="Of the measured file: not stated there.",
        notes=(*spread_warnings(table), *fit.warnings, *_notes(found, options)),
    )


def _notes(found: list[Forward], options: ImportOptions) -> Iterator[str]:
    yield (
        "The times are those of one CUDA graph of each exact batch. An engine pads small batches to the sizes it "
        "captured and launches the kernels of large ones one by one; what that takes is not in them."
    )
    yield (
        f"Not in them either: {NOT_IN_THE_TIMES}. host_overhead stands for all of these with one number, whatever the "
        "batch. The KV cache held zeros, and the weights were dummies unless --load-format said otherwise."
    )
    if found[0].ranks != options.tp:
        yield (
            f"Measured on {found[0].ranks} ranks, {found[0].ranks // options.tp} replicas of {options.tp}: the times "
            "are those of the slowest at each replay."
        )
    if not _blocks_fit(found, options.block_size):
        yield (
            f"kv_blocks of the file are not those of one pool of blocks of {options.block_size} tokens: the model has "
            "several kinds of KV cache, or layers without one. num_blocks here counts blocks that hold every layer."
        )
    odd = sum(1 for one in found if not one.finite)
    if odd:
        yield f"{odd} of {len(found)} cases computed values that are not finite; their times were kept."
