"""Exports: a run in the files of other tools. docs/exports.md says which tool reads which."""

from __future__ import annotations

from llmsim.exports.chrome_trace import chrome_trace
from llmsim.exports.mooncake import mooncake_bytes, workload_of
from llmsim.exports.token_gaps import token_gaps_s
from llmsim.exports.vllm_bench import BenchSetup, vllm_bench_json
from llmsim.exports.vllm_run import sweep_records, vllm_bench_of
from llmsim.exports.window import Window
from llmsim.exports.write import FORMATS, Export, export_runs

__all__ = [
    "FORMATS",
    "BenchSetup",
    "Export",
    "Window",
    "chrome_trace",
    "export_runs",
    "mooncake_bytes",
    "sweep_records",
    "token_gaps_s",
    "vllm_bench_json",
    "vllm_bench_of",
    "workload_of",
]
