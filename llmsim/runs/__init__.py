"""A spec in, a result out: in memory (simulation) or streamed to disk (streaming/), and saved (results).

setup (spec -> cluster and summary) · replica_groups (spec and calibration -> replicas) · tables (log -> tables) ·
headline, text, cluster_text, labels, notes (what is said of a run) · manifest (where it comes from) · folders, parquet,
orphans (worker processes end with their parent)
"""

from __future__ import annotations

from llmsim.runs.headline import Headline
from llmsim.runs.results import Result
from llmsim.runs.simulation import Run, compare, simulate
from llmsim.runs.streaming import simulate_stream

__all__ = [
    "Headline",
    "Result",
    "Run",
    "compare",
    "simulate",
    "simulate_stream",
]
