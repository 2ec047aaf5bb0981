"""The latencies of each request as a table."""

from __future__ import annotations

import pandas as pd

from llmsim.metrics.latency import Definitions, e2el_s, queue_s, seconds_or_nan, tpot_s, ttft_s
from llmsim.metrics.slo import Slo, TbtRule, has_target, slo_met
from llmsim.metrics.timeline import Timeline, longest_gaps


def request_metrics(
    requests: pd.DataFrame,
    iterations: pd.DataFrame,
    token_ranges: pd.DataFrame,
    *,
    definitions: Definitions = "vllm",
    slo: Slo | None = None,
    tbt_rule: TbtRule = "max",
) -> pd.DataFrame:
    """Latencies of each request, one row each in the order of `requests`.

    Columns: id, queue_s, ttft_s, tpot_s, max_itl_s, e2el_s (seconds, NaN for none) and slo_met (nullable
    boolean, missing where no limit applies).
    """
    timeline = Timeline.of(requests, iterations, token_ranges)
    return metrics_on(requests, timeline, definitions=definitions, slo=slo, tbt_rule=tbt_rule)


def metrics_on(
    requests: pd.DataFrame,
    timeline: Timeline,
    *,
    definitions: Definitions = "vllm",
    slo: Slo | None = None,
    tbt_rule: TbtRule = "max",
) -> pd.DataFrame:
    """The same of a timeline that is there already, measured ones included (Timeline.of_times)."""
    longest = longest_gaps(timeline)
    reached = slo_met(requests, longest, slo, definitions=definitions, tbt_rule=tbt_rule)
    met = pd.array(reached, dtype="boolean")
    met[~has_target(requests, slo)] = pd.NA
    return pd.DataFrame(
        {
            "id": requests["id"].to_numpy(),
            "queue_s": queue_s(requests),
            "ttft_s": ttft_s(requests, definitions),
            "tpot_s": tpot_s(requests),
            "max_itl_s": seconds_or_nan(longest),
            "e2el_s": e2el_s(requests),
            "slo_met": met,
        }
    )
