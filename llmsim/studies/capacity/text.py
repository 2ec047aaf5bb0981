"""A capacity report for a terminal: schedulers with intervals and paired ratios, then every seed's bracket."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmsim.runs.facts import shared_facts, told
from llmsim.runs.labels import policy_words
from llmsim.runs.text import WIDTH, wrapped
from llmsim.studies.capacity.search import CHECKS
from llmsim.studies.capacity.sentence import answer

if TYPE_CHECKING:
    from llmsim.studies.capacity.answers import Answers, SchedulerResult, SeedResult
    from llmsim.theory.intervals import Estimate

NAME_WIDTH = 30


def report_text(report: Answers) -> str:
    """The question, one line a scheduler, one line a seed, and what a reader must know."""
    names, legend = _names([result.name for result in report.schedulers])
    parts = [_question(report), _lines([_setting(report)]), _lines([" ".join(answer(report))])]
    parts += [_table(_overview(report, names)), _table(_by_seed(report, names))]
    if legend:
        parts.append(legend)
    parts.append(_lines(_notes(report, names)))
    return "\n\n".join(part for part in parts if part)


def _lines(sentences: Iterable[str]) -> str:
    return "\n".join(line for sentence in sentences for line in wrapped(sentence))


def _setting(report: Answers) -> str:
    """What all that was searched has in common."""
    results = report.schedulers
    policy = policy_words([result.label for result in results])[0]
    words = told(shared_facts([result.facts for result in results]))
    return "; ".join(part for part in (policy, words) if part)


def _names(labels: Sequence[str]) -> tuple[list[str], str]:
    """Labels, numbered with a legend where one is too long for its column."""
    if max(map(len, labels)) <= NAME_WIDTH:
        return list(labels), ""
    marks = [f"[{at}] " for at in range(1, len(labels) + 1)]
    heads = [mark + label.split(",")[0][: NAME_WIDTH - len(mark)] for mark, label in zip(marks, labels, strict=True)]
    return heads, "\n".join(mark + label for mark, label in zip(marks, labels, strict=True))


def _question(report: Answers) -> str:
    plan = report.plan
    if plan.find == "replicas":
        question = f"Fewest replicas (at most {plan.max_replicas}) that keep {plan.criterion.text}"
    elif plan.rule == "osdi":
        question = f"Rate in requests/s by the OSDI'24 search that keeps {plan.criterion.text}"
    else:
        question = f"Highest rate in requests/s, to {100 * plan.precision:g} %, that keeps {plan.criterion.text}"
    return "\n".join(textwrap.wrap(question, WIDTH))


def _table(rows: list[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell; the first and the last flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _overview(report: Answers, names: Sequence[str]) -> list[tuple[str, ...]]:
    several = len(report.schedulers) > 1
    replicas = report.plan.find == "replicas"
    head = ["scheduler", *(["all seeds"] if replicas else []), "mean", "95 % CI", "median"]
    head += ["ratio to first", "95 % CI"] if several else []
    rows = [(*head, "decided by")]
    for name, result in zip(names, report.schedulers, strict=True):
        cells = [name, *([_together(result)] if replicas else []), *_estimate(result.capacity)]
        if several:
            ratio = result.ratio_to(report.schedulers[0])
            cells += ["1", "-"] if result is report.schedulers[0] else list(_estimate(ratio)[:2])
        rows.append((*cells, result.most_binding))
    return rows


def _together(result: SchedulerResult) -> str:
    return "none" if result.together is None else str(result.together)


def _estimate(value: Estimate | None) -> tuple[str, str, str]:
    """(mean, interval, median) as text."""
    if value is None:
        return "-", "-", "-"
    interval = "-" if value.low is None else f"{value.low:.4g} to {value.high:.4g}"
    return f"{value.mean:.4g}", interval, f"{value.median:.4g}"


def _by_seed(report: Answers, names: Sequence[str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("scheduler", "seed", "keeps", "fails", "probes", "decided by")]
    for name, result in zip(names, report.schedulers, strict=True):
        rows += [_seed_row(name, seed) for seed in result.seeds]
    return rows


def _seed_row(name: str, seed: SeedResult) -> tuple[str, ...]:
    probe = seed.decisive
    why = "-" if probe is None or probe.judgement is None else probe.judgement.binding.words()
    return (name, str(seed.seed), *seed.words(), str(len(seed.found.probes)), why)


def _notes(report: Answers, names: Sequence[str]) -> Iterator[str]:
    plan = report.plan
    if all(result.bound_rps is not None for result in report.schedulers):
        yield _bound(report, names)
    if not report.varies and len(report.schedulers[0].seeds) > 1:
        yield "The workload is the same for every seed, so the interval says nothing about another one."
    for name, result in zip(names, report.schedulers, strict=True):
        yield from _scheduler_notes(report, name, result)
    if few := [(name, result) for name, result in zip(names, report.schedulers, strict=True) if result.undetermined]:
        who = ", ".join(f"{name} with {len(r.undetermined)} of {len(r.seeds)} seeds" for name, r in few)
        most = max(needed for _, result in few for needed in result.undetermined)
        yield f"Too few requests to tell whether it can last: {who}; about {most:,} (--num-requests) would tell."
    if plan.criterion.allow_overload:
        yield "Overloaded runs may pass: their latencies are those of this number of requests (or this horizon) alone."
    if plan.criterion.on_latency:
        most = max(result.unfinished for result in report.schedulers)
        yield (
            f"Beside the borders up to {most} requests of a run were unfinished (censored): in no percentile, "
            "missed in attainment."
            if most
            else "Beside the borders no run left a request unfinished, so the percentiles are of all requests."
        )
    yield _monotone(report)


def _bound(report: Answers, names: Sequence[str]) -> str:
    """The most that any scheduler could carry, of each cluster that was searched."""
    alone = " on one replica" if report.plan.find == "replicas" else ""
    bounds = [result.bound_rps for result in report.schedulers]
    if len(set(bounds)) == 1:
        carried = f"{bounds[0]:.4g} requests/s{alone}"
    else:
        carried = ", ".join(f"{name} {bound:.4g}" for name, bound in zip(names, bounds, strict=True))
        carried = f"these, in requests/s{alone}: {carried}"
    line = f"Fluid bound: no scheduler carries more than {carried}"
    if alone:
        return line + "."
    known = [
        (result.capacity.mean / bound, name)
        for name, result, bound in zip(names, report.schedulers, bounds, strict=True)
        if result.capacity is not None and bound
    ]
    line += f"; of it carry {', '.join(f'{name} {share:.0%}' for share, name in known)}." if known else "."
    if any(share > 1 for share, _ in known):
        line += " A rate above it cannot last: these runs are too short to show that; give more requests."
    return line


def _scheduler_notes(report: Answers, name: str, result: SchedulerResult) -> Iterator[str]:
    brackets = [seed.found.bracket for seed in result.seeds]
    rates = report.plan.find == "rate"
    none = [bracket.fails or 0.0 for bracket in brackets if bracket.keeps is None]
    if none and rates:
        yield (
            f"{name}: none down to {max(none):.4g} requests/s keeps the criterion with {len(none)} of {len(brackets)} "
            "seeds; counted as 0."
        )
    elif none:
        yield (
            f"{name}: none up to {max(none):g} keeps the criterion with {len(none)} of {len(brackets)} seeds; "
            "raise --max-replicas, or relax the criterion."
        )
    above = [bracket.keeps for bracket in brackets if rates and bracket.keeps is not None and bracket.fails is None]
    if above:
        yield (
            f"{name}: every rate probed kept the criterion with {len(above)} of {len(brackets)} seeds, up to "
            f"{max(above):.4g} requests/s; there is no mean. More requests (--num-requests) load it longer."
        )


def _monotone(report: Answers) -> str:
    turned = sum(seed.inversions for result in report.schedulers for seed in result.seeds)
    probes = sum(len(seed.found.probes) for result in report.schedulers for seed in result.seeds)
    if report.plan.find == "replicas":
        what = "replicas failed above a number that passed"
    else:
        what = "a rate passed above one that failed"
    beyond = f" (probed at {CHECKS[0]:g} and {CHECKS[1]:g} of each bracket, too)"
    checked = report.plan.find == "rate" and report.plan.rule == "bisection" and report.plan.check
    line = f"Not monotone: in {turned}" if turned else "Monotone: in none"
    return f"{line} of {probes} runs {what}{beyond if checked else ''}."
