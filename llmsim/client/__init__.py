"""A trace against a real server: an OpenAI-compatible endpoint measured as a simulated run is. See docs/bench.md.

    from llmsim.client import BenchSpec, bench
    result = asyncio.run(bench(BenchSpec(workload=..., endpoint="http://127.0.0.1:8000", model="llama-3-8b")))

The only package that imports aiohttp (extra `bench`); importing it without aiohttp is a ModuleNotFoundError.
"""

from __future__ import annotations

from llmsim.client.files import requests_csv, vllm_record
from llmsim.client.run import bench
from llmsim.client.spec import BenchSpec, load_bench

__all__ = ["BenchSpec", "bench", "load_bench", "requests_csv", "vllm_record"]
