"""Metrics: pure functions on the tables of a run. docs/metrics.md has every definition."""

from __future__ import annotations

from llmsim.metrics.bench import bench_record
from llmsim.metrics.latency import (
    Definitions,
    e2el_s,
    itl_samples,
    max_itl_s,
    queue_s,
    tpot_s,
    ttft_s,
)
from llmsim.metrics.load import EVERYTHING
from llmsim.metrics.per_request import metrics_on, request_metrics
from llmsim.metrics.quantiles import weighted_mean, weighted_percentiles, weighted_std
from llmsim.metrics.saturation import Verdict, saturation
from llmsim.metrics.slo import Slo, TbtRule, has_limits, has_target, parse_slo, slo_met
from llmsim.metrics.summary import PERCENTILES, span_of, summarize, summarize_measured
from llmsim.metrics.tally import Tally, TallyOptions
from llmsim.metrics.timeline import Timeline, longest_gaps, pooled_gaps

__all__ = [
    "EVERYTHING",
    "PERCENTILES",
    "Definitions",
    "Slo",
    "Tally",
    "TallyOptions",
    "TbtRule",
    "Timeline",
    "Verdict",
    "bench_record",
    "e2el_s",
    "has_limits",
    "has_target",
    "itl_samples",
    "longest_gaps",
    "max_itl_s",
    "metrics_on",
    "parse_slo",
    "pooled_gaps",
    "queue_s",
    "request_metrics",
    "saturation",
    "slo_met",
    "span_of",
    "summarize",
    "summarize_measured",
    "tpot_s",
    "ttft_s",
    "weighted_mean",
    "weighted_percentiles",
    "weighted_std",
]
