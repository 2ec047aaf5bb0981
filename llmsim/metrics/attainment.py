"""The `slo` part of a summary: attainment and goodput, of all requests and of each class.

Attainment = requests that met their service level / all requests sent (rejected, failed and unfinished ones
stay in the denominator). Goodput = the same numerator / seconds of the measured span.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from llmsim.metrics.latency import Definitions, itl_samples, ttft_ns
from llmsim.metrics.quantiles import Ints, weighted_percentiles
from llmsim.metrics.slo import CLASS_TARGETS, Slo, TbtRule, has_target, slo_met
from llmsim.metrics.timeline import Mask, Timeline, longest_gaps
from llmsim.metrics.usage import Span
from llmsim.units import MILLISECOND, SECOND

Report = dict[str, Any]


def slo_report(
    requests: pd.DataFrame,
    timeline: Timeline,
    measured: Mask,
    span: Span,
    slo: Slo | None = None,
    definitions: Definitions = "vllm",
    tbt_rule: TbtRule = "max",
    first_token_at_prefill_end: bool | None = None,
) -> Report | None:
    """Attainment and goodput of the `measured` (requests,) that have a limit; None if none has.

    A class's gaps are those of `itl_samples`, so with the 'slai' definitions they are the papers' TBT samples.
    """
    targeted = has_target(requests, slo) & measured
    if not targeted.any():
        return None
    met = slo_met(requests, longest_gaps(timeline), slo, definitions=definitions, tbt_rule=tbt_rule)
    names = requests["slo_class"].to_numpy()
    classes = sorted({str(name) for name in names[measured]})
    reports = {}
    for name in classes:
        members = measured & np.asarray(names == name)
        report = _class_report(requests, members, targeted, met, span, definitions)
        gaps = itl_samples(requests, timeline, members, definitions, first_token_at_prefill_end)
        reports[name] = report | _gap_report(report["targets_s"]["tbt"], *gaps)
    return {
        "limits_ms": {} if slo is None else slo.limits(),
        "tbt_rule": tbt_rule,
        **_share(met, targeted, span),
        "classes": reports,
    }


def _share(met: Mask, targeted: Mask, span: Span) -> Report:
    sent, good = int(targeted.sum()), int((met & targeted).sum())
    return {
        "sent": sent,
        "met": good,
        "attainment": good / sent if sent else None,
        "request_goodput": good * SECOND / span.length_ns if span.length_ns else None,
    }


def _class_report(
    requests: pd.DataFrame,
    members: Mask,
    targeted: Mask,
    met: Mask,
    span: Span,
    definitions: Definitions,
) -> Report:
    """Attainment of a class, its targets, and its TTFT percentiles."""
    finished = members & (requests["status"] == "finished").to_numpy(dtype=bool)
    ttft = ttft_ns(requests, definitions)[finished]
    ttft = ttft[~np.isnan(ttft)]
    p50, p99 = np.percentile(ttft, [50, 99]) / MILLISECOND if len(ttft) else (None, None)
    report = {"completed": int(finished.sum()), **_share(met, targeted & members, span)}
    return report | {"targets_s": _targets(requests, members), "median_ttft_ms": p50, "p99_ttft_ms": p99}


def _targets(requests: pd.DataFrame, members: Mask) -> dict[str, float | None]:
    """The class's own targets, seconds; None where it has none or its requests differ."""
    targets: dict[str, float | None] = {}
    for column, name in zip(CLASS_TARGETS, ("ttft", "tbt", "ttlt"), strict=True):
        values = np.unique(requests[column].to_numpy(dtype=np.float64)[members])  # all NaN count as one
        targets[name] = float(values[0]) if len(values) == 1 and not np.isnan(values[0]) else None
    return targets


def _gap_report(target: float | None, gaps: Ints, weights: Ints) -> Report:
    """p99 of the class's gaps (ns), and the share of them above its TBT target (seconds); empty without one."""
    if target is None:
        return {}
    total = int(weights.sum())
    over = int(weights[gaps > round(target * SECOND)].sum())
    return {
        "p99_itl_ms": float(weighted_percentiles(gaps, weights, [99])[0]) / MILLISECOND,
        "itl_over_target_share": over / total if total else None,
    }
