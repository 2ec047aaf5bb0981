"""Decision traces: does a scheduler of this project decide as the original did, iteration by iteration?

``python -m llmsim.testing.golden FILE...`` replays each file's requests, KV pool and batch-time function through
this project's scheduler and loop, one iteration at a time, and compares batch, preemptions, free blocks and times
with what the original did. A file is one (gzipped) JSON object with the keys scheduler, params, kv, semantics,
cost, requests and iterations.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.core.clock import Clock
from llmsim.core.content import Content
from llmsim.core.kvcache import KVCache
from llmsim.core.prefix.cache import PrefixCache
from llmsim.core.request import NEVER, Request, SloClass
from llmsim.engine.recorder import Recorder
from llmsim.errors import ConfigError, LlmsimError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.schedulers.simple_chunking import SimpleChunking
from llmsim.testing.comparison import Compared, ComparedAhead, Comparison
from llmsim.testing.originals import GoldenCost, lacking, scheduler_of
from llmsim.units import to_ns

if TYPE_CHECKING:
    from simpy.events import Event


def compare(trace: dict[str, Any]) -> Comparison:
    """Replay one decision trace; raises ConfigError for one that needs what nothing here does (`lacking`)."""
    needed = lacking(trace)
    if needed:
        raise ConfigError(f"this run cannot be replayed: nothing here does {', '.join(needed)}")
    pool, semantics = trace["kv"], trace["semantics"]
    scheduler = scheduler_of(trace)
    if isinstance(scheduler, SimpleChunking):
        # The recordings' driver went to the next arrival after an empty batch, and polled again after the last.
        scheduler.empty_turn_passes = False
    cache = PrefixCache if trace["params"].get("enable_prefix_caching", False) else KVCache
    kv = cache(pool["num_blocks"], pool["block_size"], pool["watermark"])
    scheduler.bind(kv, pool["max_model_len"])
    comparison = Comparison(trace["iterations"])
    env = Clock()
    replica = (ComparedAhead if semantics.get("async_scheduling", False) else Compared)(
        env,
        scheduler,
        SimulatedExecutor(GoldenCost(**trace["cost"])),
        kv,
        Recorder(comparison),
        macro=False,
        first_token_at_prefill_end=semantics["first_token_at_prefill_end"],
        regenerate_output=semantics.get("preempted_request_regenerates_output", False),
    )
    replica.comparison = comparison
    replica.cut = trace.get("ended") == "cut"
    sent: list[Request] = []
    env.process(_arrivals(env, replica, trace["requests"], sent))
    env.run()
    comparison.end([request.id for request in sent if request.finish_ns == NEVER], trace.get("unfinished", []))
    return comparison


def _arrivals(
    env: Clock, replica: Compared, rows: list[dict[str, Any]], sent: list[Request]
) -> Generator[Event, None, None]:
    for row in sorted(rows, key=lambda row: (row["arrival_s"], row["id"])):
        at = to_ns(row["arrival_s"])
        if at > env.now:
            yield env.timeout(at - env.now)
        if replica.stopped:
            return
        slo = SloClass(tbt_s=row.get("tbt_s"), tier=row.get("tier"), priority=row.get("strict", False))
        sent.append(
            Request(
                row["id"],
                at,
                row["prompt_tokens"],
                row["output_tokens"],
                slo,
                content=_content(row),
                priority=-row.get("priority", 0),  # lower is more urgent at vLLM
            )
        )
        replica.submit(sent[-1])
    if isinstance(replica.scheduler, SimpleChunking):
        replica.scheduler.empty_turn_passes = True


def _content(row: dict[str, Any]) -> Content | None:
    if "prompt_segments" not in row:
        return None
    return Content(tuple((stream, tokens) for stream, tokens in row["prompt_segments"]), row["output_segment"])


def main(arguments: Sequence[str]) -> int:
    """Compare every file; 0 if none had a mismatch, 1 if any had, 2 for a file that cannot be used, or if none of
    them could be replayed."""
    parser = argparse.ArgumentParser(
        prog="python -m llmsim.testing.golden",
        description="Replay decision traces of original schedulers and compare every iteration: batch, preempted "
        "requests, free KV blocks, start and end. A file that needs what no scheduler here does is counted as not "
        "replayable.",
        epilog="Exit code: 0 no mismatch, 1 a mismatch, 2 a file cannot be used, or none can be replayed.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a decision trace: JSON, plain or gzipped")
    paths = [Path(name) for name in parser.parse_args(arguments).files]
    iterations = mismatches = replayed = 0
    unusable = False
    lacked: Counter[str] = Counter()
    for path in paths:
        try:
            trace = _read(path)
            if needed := ", ".join(lacking(trace)):
                print(f"{path.name}: not replayable: needs {needed}")
                lacked[needed] += 1
                continue
            result = compare(trace)
        except (OSError, EOFError, ValueError, KeyError, TypeError, LlmsimError) as error:
            print(f"{path.name}: error: {type(error).__name__}: {error}")
            unusable = True
            continue
        replayed += 1
        iterations += len(result.expected)
        mismatches += result.mismatches
        said = f"{path.name}: iterations {len(result.expected)} mismatches {result.mismatches}"
        print(said + (f" first at {result.first}" if result.first else ""))
    print(f"total: files {len(paths)} iterations {iterations} mismatches {mismatches}{_not_replayed(lacked)}")
    if unusable or not replayed:
        return 2
    return 1 if mismatches else 0


def _read(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    trace = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if not isinstance(trace, dict):
        raise TypeError(f"a decision trace is a JSON object but this is a {type(trace).__name__}")
    return trace


def _not_replayed(lacked: Counter[str]) -> str:
    if not lacked:
        return ""
    return f" not replayable {lacked.total()} ({'; '.join(f'{what}: {n}' for what, n in sorted(lacked.items()))})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
