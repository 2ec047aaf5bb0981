"""A comparison with a measured run for people: plain text of 100 columns."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from llmsim.runs.contests import number
from llmsim.validation.compare import STATISTICS
from llmsim.validation.iteration_counts import MOST
from llmsim.validation.text import error_lines, percent, signed

if TYPE_CHECKING:
    from llmsim.validation.against import Against
    from llmsim.validation.pace import Pace


def against_text(found: Against) -> str:
    """One policy: errors, stages, the run's phases, the pace of its iterations, and the counterfactual."""
    lines = [f"== {found.label} against {found.live.name} ({found.errors.requests:,} requests)"]
    lines += error_lines(found.errors)
    own = ", ".join(f"{metric.upper()} {percent(value)}" for metric, value in found.errors.per_request_pct.items())
    lines += [f"median absolute error of the single requests: {own.replace('+', '')}", ""]
    lines += _stage_lines(found)
    lines += ["", *_phase_lines(found)]
    if found.pace is not None:
        lines += ["", *_pace_lines(found.pace)]
    for other in found.counterfactuals:
        lines.append(f"with {other.name} (batch times x {other.factor:.3f}), errors:")
        for metric in ("ttft", "tpot", "e2el"):
            cells = ", ".join(f"{s} {percent(other.errors.error(metric, s))}" for s in STATISTICS)
            lines.append(f"  {metric.upper():5} {cells}")
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _stage_lines(found: Against) -> list[str]:
    lines = [f"{'where, mean in ms':34}{'live':>10}{'sim':>10}{'sim - live':>12}{'error':>10}"]
    for row in found.stages.to_dict("records"):
        name = f"{row['requests']} ({row['count']:,}): {row['stage']}"
        numbers = f"{number(row['live_ms']):>10}{number(row['simulated_ms']):>10}{row['error_ms']:>+12.1f}"
        lines.append(f"{name:34}{numbers}{_share(row['error_pct']):>10}")
    return lines


def _phase_lines(found: Against) -> list[str]:
    heads = "".join(f"{f'{metric} live':>11}{'sim':>8}{'error':>9}" for metric in ("TTFT", "TPOT"))
    lines = [f"{'requests that arrived':26}{'count':>7}{heads}"]
    for row in found.phases.to_dict("records"):
        when = f"{row['from_s']:.1f} to {row['to_s']:.1f} s"
        lines.append(f"{when:26}{row['requests']:>7,}{_pair(row, 'ttft')}{_pair(row, 'tpot')}")
    for row in found.company.to_dict("records"):
        name = f"{row['decoding']} decoding"
        lines.append(f"{name:26}{row['requests']:>7,}{'':>28}{_pair(row, 'tpot')}")
    return lines


def _pair(row: dict[Hashable, Any], metric: str) -> str:
    """Both means of a metric in ms, and the error."""
    live, simulated = (_known(row[f"{metric}_{side}_ms"]) for side in ("live", "simulated"))
    return f"{live:>11}{simulated:>8}{_share(row[f'{metric}_error_pct']):>9}"


def _pace_lines(pace: Pace) -> list[str]:
    if pace.windows.empty:
        return ["no iteration can be told apart: never did a set of requests only decode between two known times"]
    titles = {"windows": 9, "iterations": 12, "context": 9, "live ms": 9, "model ms": 10, "bias": 9}
    lines = [f"{'iterations that only decode':28}" + "".join(f"{title:>{width}}" for title, width in titles.items())]
    for row in pace.by_decodes().to_dict("records"):
        name = f"{row['decodes']} decodes"
        lines.append(
            f"{name:28}{row['windows']:>9,}{row['iterations']:>12,}{row['mean_context']:>9,.0f}{row['measured_ms']:>9.2f}"
            f"{row['modelled_ms']:>10.2f}{_share(row['bias_pct']):>9}"
        )
    unclear = int(pace.by_decodes()["unclear"].iloc[-1])
    left = ", ".join(f"{count} with {words}" for words, count in _unused(pace).items() if count)
    lines.append(f"windows: {unclear} of {len(pace.windows)} counts unclear" + (f"; not used: {left}" if left else ""))
    if len(pace.stretches):
        held = pace.stretches
        lines.append(
            f"{len(held)} stretches of up to {held['iterations'].max():,} iterations are counted by tokens; bias there "
            f"{signed(held['bias_pct'].min())} to {signed(held['bias_pct'].max())} %"
        )
    else:
        lines.append("no stretch has iterations that are known by tokens: counts rest on quotients alone")
    return lines


def _unused(pace: Pace) -> dict[str, int]:
    return {
        "no iteration": pace.unused["no_iteration"],
        f"more than {MOST}": pace.unused[f"more_than_{MOST}"],
    }


def _known(value: float | None) -> str:
    return number(None if value is None or value != value else value)


def _share(value: float | None) -> str:
    return percent(None if value is None or value != value else value)


def side_by_side(comparisons: Sequence[Against]) -> str:
    """Errors in percent of several policies, and those left when the bias of pure decode iterations is gone."""
    width = max(len(found.label) for found in comparisons)
    head = " " * width + "".join(f"{metric.upper() + ' mean p50 p90 p99':>27}" for metric in ("ttft", "tpot", "e2el"))
    lines = ["errors of the simulation in % (simulated / live - 1)", head]
    for found in comparisons:
        cells = [
            " ".join(f"{signed(found.errors.error(metric, statistic)):>5}" for statistic in STATISTICS)
            for metric in ("ttft", "tpot", "e2el")
        ]
        lines.append(found.label.ljust(width) + "".join(cell.rjust(27) for cell in cells))
    return "\n".join(lines)
