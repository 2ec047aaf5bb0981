"""Run directories to export files: which formats there are, where they go, and what a reader must know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmsim.errors import ConfigError, did_you_mean
from llmsim.exports.chrome_trace import chrome_trace
from llmsim.exports.mooncake import left_out_of, mooncake_bytes
from llmsim.exports.vllm_run import sweep_records, vllm_bench_of
from llmsim.exports.window import OPEN, Window
from llmsim.runs.headline import CONFIG, META, SUMMARY
from llmsim.runs.results import MEASURED, TABLES, Result
from llmsim.traces.conversion import WITH_HASH_IDS
from llmsim.traces.files import write_bytes

FORMATS = {
    "mooncake": "mooncake.jsonl",
    "vllm-bench": "vllm_bench.json",
    "vllm-sweep": "vllm_sweep/summary.json",
    "chrome-trace": "chrome_trace.json.gz",
}
"""Formats, and what a file of theirs is called in the run's directory."""

OWN_FILES = {CONFIG, META, SUMMARY, *(f"{name}.parquet" for name in TABLES + MEASURED)}


@dataclass(frozen=True, slots=True)
class Export:
    """A file that was written, and one sentence for each thing its reader must know."""

    path: Path
    notes: tuple[str, ...]


def export_runs(folders: Sequence[Path], format: str, out: Path | None = None, window: Window = OPEN) -> Export:
    """Write one file of `format` from run directories (several: vllm-sweep only); gzipped if it ends in .gz.

    `out` None: the name in FORMATS, in the run's directory. `window` cuts a chrome-trace.

    Raises ConfigError for an unknown format, options that do not go together, a directory that holds no run, and an
    `out` that is a file of the run itself; TraceError if the file cannot be written; ValueError if the tables of a
    run contradict each other.
    """
    _check(folders, format, out, window)
    path = folders[0] / FORMATS[format] if out is None else out
    if path.name in OWN_FILES and (path.parent / META).exists():
        raise ConfigError(f"{path}: is a file of the run itself; choose another name with --out")
    tables = ("requests",) if format == "mooncake" else None  # all that it needs, of a run however long
    results = [(folder, Result.load(folder, tables)) for folder in folders]
    folder, result = results[0]
    if out is None and format == "vllm-bench" and result.token_times is not None and path.exists():
        raise ConfigError(f"{path}: is the record that the measurement itself wrote; name another file with --out")
    if format == "mooncake":
        data = mooncake_bytes(result.requests)
    elif format == "chrome-trace":
        data = chrome_trace(result, window)
    else:
        record = vllm_bench_of(result, folder) if format == "vllm-bench" else sweep_records(results)
        data = (json.dumps(record, allow_nan=False) + "\n").encode()
    notes = dict.fromkeys(note for _, each in results for note in _notes(each, format))
    return Export(write_bytes(path, data), tuple(notes))


def _check(folders: Sequence[Path], format: str, out: Path | None, window: Window) -> None:
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        hint = did_you_mean(format, FORMATS)
        raise ConfigError(f"--to must be one of {known} but got {format!r}.{hint if 'mean' in hint else ''}")
    if len(folders) > 1 and format != "vllm-sweep":
        raise ConfigError(
            f"--to {format} makes one file of one run but got {len(folders)} directories; export them one by one"
        )
    if len(folders) > 1 and out is None:
        raise ConfigError("--to vllm-sweep of several runs needs --out, for instance --out sweep/summary.json")
    if window != OPEN and format != "chrome-trace":
        raise ConfigError(f"--from-s and --to-s cut a chrome-trace, not {format}; leave them out")


def _notes(result: Result, format: str) -> list[str]:
    """Where the file says something else than the run's summary, or less than the run held."""
    summary, notes = result.summary, []
    counts = summary["requests"]
    arrivals = result.manifest.get("workload", {}).get("spec", {}).get("arrivals", {})
    if format == "mooncake":
        if lost := left_out_of(result.requests):
            notes.append(f"Mooncake's rows have no place for {', '.join(lost)}; the run's requests.parquet has them")
        if ((result.manifest.get("workload") or {}).get("trace") or {}).get("kind") in WITH_HASH_IDS:
            notes.append("hash_ids are made anew, and none is shared: a run's tables do not keep those of its trace")
        if arrivals.get("max_concurrency"):
            notes.append("the run was a closed loop: the times are those at which its clients sent, now fixed")
        if counts.get("not_sent"):
            notes.append(f"{counts['not_sent']} requests of the workload were never sent and are not in the file")
    if format.startswith("vllm"):
        if summary["definitions"] != "vllm":
            notes.append(f"latencies are by vLLM's definitions; the summary's are by {summary['definitions']}'s")
        if counts["warmup_excluded"]:
            notes.append(
                f"{counts['warmup_excluded']} requests of the warm-up are left out of everything, counts and rates, too"
            )
    return notes
