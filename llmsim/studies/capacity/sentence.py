"""What a capacity search found in plain sentences: the number, with whom, and what comes nearest to breaking it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmsim.runs.contests import SAME, in_words

if TYPE_CHECKING:
    from llmsim.studies.capacity.answers import Answers, SchedulerResult, SeedResult
    from llmsim.studies.capacity.criterion import Check


def answer(report: Answers) -> list[str]:
    """One to a few sentences; empty where nothing was searched."""
    return list(_replicas(report) if report.plan.find == "replicas" else _rates(report))


def conditions(report: Answers) -> str:
    """The conditions as a person says them: 'p95_ttft<=1s and p95_tpot<=40ms'."""
    return in_words([condition.text for condition in report.plan.criterion.conditions])


def listed(names: Sequence[str]) -> str:
    """Names in a row; an option that all of them set is said once: 'chunk_size 512, 1024 and 2048'."""
    pairs = [name.partition("=") for name in names]
    options = {option for option, equals, value in pairs if equals and "=" not in value and "," not in value}
    if len(options) == 1 and all(option in options for option, _, _ in pairs) and len(names) > 1:
        return f"{options.pop()} {in_words([value for _, _, value in pairs])}"
    return in_words(names)


def _replicas(report: Answers) -> Iterator[str]:
    """The fewest GPUs, with whom; then the others; then who comes nearest to a limit with that many."""
    enough: dict[tuple[int, int], list[SchedulerResult]] = {}
    for result in report.schedulers:
        if result.together is not None:
            enough.setdefault((result.together * result.gpus, result.together), []).append(result)
    several = len(report.schedulers) > 1
    for at, ((gpus, count), results) in enumerate(sorted(enough.items())):
        whom = f" with {listed([result.name for result in results])}" if several else ""
        fewer = "" if count == 1 else f"; {_fewer_fail(results)}"
        verb = f" {'keeps' if gpus == 1 else 'keep'} {conditions(report)}" if at == 0 else ""
        yield f"{_machines(gpus, count)}{verb}{whom}{fewer}."
    for result in report.schedulers:
        if result.together is None:
            decisive = _worst([seed for seed in result.seeds if seed.found.bracket.keeps is None])
            why = "" if decisive is None else f": {decisive.words()}"
            whom = f" with {result.name}" if several else ""
            yield f"No number up to {report.plan.max_replicas} keeps {conditions(report)}{whom}{why}."
    if enough:
        yield from _nearest(min(enough), enough[min(enough)], several)


def _machines(gpus: int, count: int) -> str:
    replicas = "1 replica" if count == 1 else f"{count} replicas"
    return f"{gpus} GPU{'' if gpus == 1 else 's'} ({replicas})"


def _fewer_fail(results: Sequence[SchedulerResult]) -> str:
    """What broke with one replica fewer."""
    words = []
    for result in results:
        assert result.together is not None
        fewer = [seed.found.at(result.together - 1) for seed in result.seeds]
        failed = [p.judgement.binding for p in fewer if p is not None and not p.passed and p.judgement is not None]
        if failed:
            worst, count = max(failed, key=_used), result.together - 1
            verb = ("is" if count == 1 else "are") if worst.limit is None else ("has" if count == 1 else "have")
            words.append(f"{count} {verb} {worst.words()}")
    return "; ".join(dict.fromkeys(words)) or "fewer do not keep it with every seed"


def _nearest(fewest: tuple[int, int], results: Sequence[SchedulerResult], several: bool) -> Iterator[str]:
    """The check that uses most of its limit, of the runs that the answer rests on."""
    found = []
    for result in results:
        probes = [seed.found.at(fewest[1]) for seed in result.seeds]
        checks = [check for p in probes if p is not None and p.judgement is not None for check in p.judgement.checks]
        known = [check for check in checks if check.limit is not None and check.value is not None]
        if known:
            found.append((max(known, key=_used), result.name))
    if found:
        check, name = max(found, key=lambda pair: _used(pair[0]))
        whom = f", with {name}" if several else ""
        yield f"Nearest to a limit there: {check.words()}{whom}."


def _used(check: Check) -> float:
    return check.use if check.use is not None else float("inf")


def _worst(seeds: Sequence[SeedResult]) -> Check | None:
    checks = [seed.decisive.judgement.binding for seed in seeds if seed.decisive and seed.decisive.judgement]
    return max(checks, key=_used, default=None)


def _rates(report: Answers) -> Iterator[str]:
    """The rates from the highest down, and whether the first is more than the second."""
    known = [(result.capacity.mean, result) for result in report.schedulers if result.capacity is not None]
    known.sort(key=lambda pair: -pair[0])
    if not known or known[0][0] <= 0:
        return
    if len(report.schedulers) == 1:
        (mean, result) = known[0]
        yield f"{mean:.3g} requests/s {_interval(result)}keep {conditions(report)}; {result.most_binding} decides."
        return
    rates = [f"{result.name}: {mean:.3g}{_interval(result, ' ').rstrip()}" for mean, result in known]
    yield f"Highest rates that keep {conditions(report)}, in requests/s: {'; '.join(rates)}."
    if len(known) > 1:
        yield _first_two(known[0][1], known[1][1])


def _interval(result: SchedulerResult, before: str = "") -> str:
    estimate = result.capacity
    if estimate is None or estimate.low is None or estimate.high is None or len(result.seeds) == 1:
        return ""
    return f"{before}({estimate.low:.3g} to {estimate.high:.3g}) "


def _first_two(best: SchedulerResult, second: SchedulerResult) -> str:
    """Only a difference whose interval leaves out none, or without an interval one of SAME, is called one."""
    ratio = best.ratio_to(second)
    if ratio is None:
        return f"{best.name} and {second.name} cannot be compared: one of them has no rate that passed."
    if ratio.low is None or ratio.high is None:
        if ratio.mean - 1 < SAME:
            return f"{best.name} and {second.name} are level (below {SAME:.0%} apart)."
        return f"{best.name} carries {ratio.mean - 1:.0%} more than {second.name}, with one seed: no interval."
    if ratio.low <= 1:
        span = f"{ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}"
        return f"{best.name} and {second.name} do not differ beyond their seeds (ratio {span})."
    return (
        f"{best.name} carries {ratio.mean - 1:.1%} more than {second.name} "
        f"(95 % interval {ratio.low - 1:.1%} to {ratio.high - 1:.1%})."
    )
