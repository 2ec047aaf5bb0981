"""Speed, measured in one run: ``python -m llmsim.benchmarks [--requests N] [--repeats N] [--no-peer] [--only NAME]``.

`--only scale` measures what scale.py describes: a million requests over 64 replicas, and how the cost grows.

Prints one JSON line a workload. `iterations_per_s` and `requests_per_s` are simulated per second of wall time, the
event loop and the tables of its log included; `simpy_timeouts_per_s` is what SimPy alone makes of bare timeouts,
measured between the repeats in the same process; `ratio` is iterations per timeout. `target` is in requests/s, and
`peer` how many times as many requests/s as DynoSim serves in the same run, at the same share of its own capacity.
Loads are shares of the capacity that the policy shows when all requests arrive at once. Every workload runs in a
process of its own, so that `peak_rss_mib` is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from llmsim.benchmarks.scale import scale_lines
from llmsim.benchmarks.speed import measure, peer_lines, workloads
from llmsim.runs.orphans import end_with


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the peer and every workload, and print their lines."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.benchmarks", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="one workload: W1, W2, W3, sharegpt4, azure-conv or scale")
    parser.add_argument("--no-peer", action="store_true", help="do not measure DynoSim")
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    chosen = [w for w in workloads(options.requests) if options.only in (None, w.name)]
    if not chosen and options.only != "scale":
        parser.error(f"--only must be W1, W2, W3, sharegpt4, azure-conv or scale but got {options.only!r}")
    peers = {} if options.no_peer else peer_lines(chosen, options.repeats)
    for workload in chosen:
        print(f"measuring {workload.name} on {workload.scheduler} ...", file=sys.stderr)
        with ProcessPoolExecutor(1, mp_context=context, initializer=end_with, initargs=(os.getpid(),)) as pool:
            line = pool.submit(measure, workload, options.repeats).result()
        peer = None if workload.load is None else peers.get((workload.name, workload.load))
        line["peer"] = None if peer is None else round(line["requests_per_s"] / peer, 2)
        print(json.dumps(line), flush=True)
    if options.only in (None, "scale"):
        print("measuring W1 over many replicas, up to a million requests ...", file=sys.stderr)
        for line in scale_lines(context):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
