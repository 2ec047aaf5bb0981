"""A comparison for people: plain text of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmsim.runs.contests import number
from llmsim.validation.compare import METRICS, STATISTICS

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.validation.compare import ErrorTable
    from llmsim.validation.compare_runs import Comparison

CAUSE_WORDS = {
    "batch_time_ms": "batch times",
    "host_overhead_ms": "host overhead",
    "queue_amplification_ms": "queues",
}


def comparison_text(found: Comparison) -> str:
    """One load: errors, causes, iterations, drift."""
    lines = [f"== {found.label} ({found.rate:.2f} req/s, {found.errors.requests} requests)"]
    lines += error_lines(found.errors)
    lines += ["", "why, in ms a request (simulated - live = the three causes together)"]
    lines += _cause_lines(found.causes)
    lines += ["", *_iteration_lines(found)]
    for other in found.counterfactuals:
        means = ", ".join(f"{m.upper()} {percent(other.errors.error(m, 'mean'))}" for m in ("ttft", "tpot", "e2el"))
        lines.append(f"with {other.name} (batch times x {other.factor:.3f}), errors of the means: {means}")
    lines += [f"replay on the recorded times: {found.replay}", *found.notes]
    return "\n".join(lines)


def loads_text(comparisons: Sequence[Comparison]) -> str:
    """All loads side by side: errors in percent, as calibrated and at the speed that was found."""
    width = max(len(found.label) for found in comparisons)
    head = " " * width + "".join(f"{metric.upper() + ' mean p50 p90 p99':>27}" for metric in ("ttft", "tpot", "e2el"))
    lines = ["errors of the simulation in % (simulated / live - 1)", head]
    lines += [_errors_in_a_line(found.label, width, found.errors) for found in comparisons]
    probed = [(found.label, found.at_found_speed) for found in comparisons]
    if any(errors is not None for _, errors in probed):
        lines += ["", "the same with the device as fast as it was found during each run", head]
        lines += [_errors_in_a_line(label, width, errors) for label, errors in probed if errors is not None]
    return "\n".join(lines)


def _errors_in_a_line(label: str, width: int, errors: ErrorTable) -> str:
    cells = [
        " ".join(f"{signed(errors.error(metric, statistic)):>5}" for statistic in STATISTICS)
        for metric in ("ttft", "tpot", "e2el")
    ]
    return label.ljust(width) + "".join(cell.rjust(27) for cell in cells)


def percent(value: float | None) -> str:
    """+1.2 %, or - for none."""
    return "-" if value is None else f"{value:+.1f} %"


def signed(value: float | None) -> str:
    """+1.2, or - for none."""
    return "-" if value is None else f"{value:+.1f}"


def error_lines(errors: ErrorTable) -> list[str]:
    """Latencies of both runs and their errors, and what the whole runs did; without what neither or only one knows."""
    lines = [f"{'':14}" + "".join(f"{s + '  live':>12}{'sim':>7}{'error':>9}" for s in ("mean", "p50", "p99"))]
    by = {(line.metric, line.statistic): line for line in errors}
    for metric in METRICS:
        if by[metric, "mean"].live is None:
            continue
        cells = ""
        for statistic in ("mean", "p50", "p99"):
            line = by[metric, statistic]
            cells += f"{number(line.live):>12}{number(line.simulated):>7}{percent(line.error_pct):>9}"
        lines.append(f"{metric.upper() + ' ms':14}{cells}")
    for name, unit in (("output_throughput", "tok/s"), ("kv_mean_used", "KV blocks")):
        line = by[name, "run"]
        if line.live is not None:
            lines.append(f"{unit:14}{number(line.live):>12}{number(line.simulated):>7}{percent(line.error_pct):>9}")
    return lines


def _cause_lines(causes: pd.DataFrame) -> list[str]:
    lines = [f"{'':20}{'live':>9}{'error':>9}" + "".join(f"{word:>15}" for word in CAUSE_WORDS.values())]
    for row in causes.to_dict("records"):
        name = f"{str(row['metric']).upper()}, {row['requests']}"
        parts = "".join(f"{row[key]:>+15.2f}" for key in CAUSE_WORDS)
        lines.append(f"{name:20}{number(row['live_ms']):>9}{row['error_ms']:>+9.2f}{parts}")
    return lines


def _iteration_lines(found: Comparison) -> list[str]:
    lines = [f"{'iterations':14}{'count':>8}{'of time':>9}{'bias':>9}{'mean |error|':>14}{'p95':>8}{'outside box':>13}"]
    lines += [
        f"{row['regime']:14}{row['iterations']:>8,}{row['share_of_time_pct']:>7.0f} %{row['bias_pct']:>+7.1f} %"
        f"{row['mape_pct']:>12.1f} %{row['p95_pct']:>6.1f} %{row['outside_pct']:>11.1f} %"
        for row in found.iterations.by_regime().to_dict("records")
    ]
    host = found.iterations.host()
    lines.append(
        f"host overhead  {host['median_us']:.0f} us an iteration (mean {host['mean_us']:.0f}, p99 {host['p99_us']:.0f})"
        f"; calibration {host['model_us']:.0f} us"
    )
    return lines
