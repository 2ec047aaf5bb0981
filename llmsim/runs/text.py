"""Results for people, side by side in a terminal: 100 columns, plain text, the same when piped.

It reads labels, descriptions and summaries only: first what all runs have in common (facts), then latencies and load,
a row a run, then a sentence a metric says which run wins and by how much, or that none does (contests).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmsim.runs.cluster_text import SECONDS_FROM_MS, fleet_lines
from llmsim.runs.contests import CONTESTS, SAME, contest_words, in_the_running, number, stars, verdict
from llmsim.runs.facts import ENGINE, config_of, facts, setting
from llmsim.runs.labels import differing, policy_words, run_names

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline

METRICS = ("ttft", "tpot", "itl", "e2el")
POINTS = ("p50", "p90", "p99")
WIDTH = 100
NAME_WIDTH = 19
CELL = 6
MOST_GROUPS = 4
"""Sets of runs with requests of their own that get sentences: a table of more is read by row."""


def comparison(results: Sequence[Headline]) -> str:
    """Results side by side as text of 100 columns: what they are of, latencies, load, and who wins."""
    if not results:
        return "no results"
    names, legend = _names(run_names(results))
    summaries, groups = [result.summary for result in results], same_requests(results)
    heads = [*wrapped(_setting(results)), *_engine_lines(names, results)]
    parts = ["\n".join(heads), *_latency_blocks(names, summaries, groups)]
    parts += [_load_block(names, summaries, groups), legend]
    parts.append("\n".join(_verdict_words(names, results, groups)))
    return "\n\n".join(part for part in parts if part)


def _setting(results: Sequence[Headline]) -> str:
    """What all runs share, the policy included where its name is not in the rows."""
    policy = policy_words([result.label for result in results])[0] if len(results) > 1 else ""
    return "; ".join(words for words in (policy, setting(results)) if words)


def _engine_lines(names: Sequence[str], results: Sequence[Headline]) -> list[str]:
    """The settings of each run's engine, where they are not those of all."""
    each = [facts(result).get(ENGINE, "") for result in results]
    if len(set(each)) < 2:
        return []
    told = (
        words if words.startswith(name) else f"{name}: {words or 'no named engine'}"
        for name, words in zip(names, each, strict=True)
    )
    return [part for line in told for part in wrapped(line)]


def same_requests(results: Sequence[Headline]) -> list[int]:
    """A number for each run; runs that serve the very same requests have the same."""
    each = [repr(requests_of(result)) for result in results]
    known = list(dict.fromkeys(each))
    return [known.index(one) for one in each]


def requests_of(result: Headline) -> tuple[Any, Any]:
    """What decides the requests of a run."""
    return (result.manifest.get("workload") or {}).get("spec"), result.manifest.get("seed")


def _names(labels: Sequence[str]) -> tuple[list[str], str]:
    """Labels that fit the first column, and a legend of those that had to be cut."""
    if max(map(len, labels)) <= NAME_WIDTH:
        return list(labels), ""
    short, legend = [], []
    for i, label in enumerate(labels, 1):
        mark = f"[{i}] "
        room, plain = NAME_WIDTH - len(mark), label.removeprefix(mark)
        head = plain if len(plain) <= room else plain.split(",")[0]  # the policy without its options
        if len(head) > room:  # of an option its value counts
            head = ".." + head[2 - room :] if "=" in head else head[: room - 2] + ".."
        short.append(mark + head)
        legend.append("\n".join(textwrap.wrap(mark + plain, WIDTH, subsequent_indent="    ", break_on_hyphens=False)))
    return short, "\n".join(legend)


def points_of(summaries: Sequence[dict[str, Any]]) -> Sequence[str]:
    """The percentiles that tables of these runs show: those asked for, else POINTS."""
    asked = dict.fromkeys(point for summary in summaries for point in summary.get("percentiles") or ())
    return [f"p{point:g}" for point in asked] or POINTS


def latency_columns(
    summaries: Sequence[dict[str, Any]], points: Sequence[str] = POINTS
) -> Iterator[tuple[str, str, list[list[float | None]]]]:
    """Metric, unit and one column a point for each latency; in seconds where a value is large, else in ms."""
    for metric in METRICS:
        values = [[summary.get(f"{point}_{metric}_ms") for summary in summaries] for point in points]
        slow = any(value is not None and value >= SECONDS_FROM_MS for column in values for value in column)
        unit, scale = ("s", 1e-3) if slow else ("ms", 1.0)
        # No time between tokens at all is an answer in one piece: no latency of tokens.
        least = 0.0 if metric in ("tpot", "itl") else -1.0
        yield metric, unit, [[None if v is None or v <= least else v * scale for v in column] for column in values]


def _starred(values: Sequence[float | None], best: Sequence[bool]) -> list[str]:
    """Values as text of one width, a star behind the best."""
    return [number(value) + ("*" if star else " ") for value, star in zip(values, best, strict=True)]


def _latency_blocks(
    names: Sequence[str], summaries: Sequence[dict[str, Any]], groups: Sequence[int]
) -> Iterator[str]:
    """A table of the four latencies, or several below each other where so many points need more than the width."""
    points = points_of(summaries)
    columns = list(latency_columns(summaries, points))
    fit = max(1, (WIDTH + 1 - NAME_WIDTH) // (2 + CELL * len(points)))  # a last column's blank may hang over
    running = in_the_running(summaries, groups)
    for first in range(0, len(columns), fit):
        titles, heads, cells = "", "", []
        for metric, unit, values in columns[first : first + fit]:
            titles += "  " + f" {metric.upper()} {unit} ".center(CELL * len(points), "-")
            heads += "  " + "".join(f"{point:>{CELL - 1}} " for point in points)
            starred = [_starred(column, stars(column, among=running, groups=groups)) for column in values]
            cells.append(["".join(text.rjust(CELL) for text in row) for row in zip(*starred, strict=True)])
        lines = [" " * NAME_WIDTH + titles, "scheduler".ljust(NAME_WIDTH) + heads]
        lines += [
            name.ljust(NAME_WIDTH) + "  " + "  ".join(row)
            for name, row in zip(names, zip(*cells, strict=True), strict=True)
        ]
        yield "\n".join(line.rstrip() for line in lines)


def percent(value: float | None) -> float | None:
    """A share in percent."""
    return None if value is None else 100 * value


def _load_block(names: Sequence[str], summaries: Sequence[dict[str, Any]], groups: Sequence[int]) -> str:
    """Requests and tokens served, KV use, preemptions, unanswered requests, attainment and the saturation verdict."""
    kv = [summary.get("kv", {}) for summary in summaries]

    def highest(values: Sequence[float | None]) -> list[str]:
        return _starred(values, stars(values, lowest=False, groups=groups))

    columns = {
        "served/s": highest([served_rate(s) for s in summaries]),
        "out tok/s": highest([s.get("output_throughput") for s in summaries]),
        "KV avg%": [number(percent(k.get("mean_share"))) for k in kv],
        "KV max%": [number(percent(k.get("max_share"))) for k in kv],
        "preempt": [str(s.get("preemptions", "-")) for s in summaries],
        "lost": [str(s.get("sent", 0) - s.get("completed", 0)) for s in summaries],
    }
    if any(s.get("slo") for s in summaries):
        columns["SLO%"] = highest([percent((s.get("slo") or {}).get("attainment")) for s in summaries])
    widths = {title: max(len(title), *map(len, cells)) for title, cells in columns.items()}
    lines = ["scheduler".ljust(NAME_WIDTH) + "".join(f"  {t:>{w}}" for t, w in widths.items()) + "  load"]
    for row, name in enumerate(names):
        cells = "".join(f"  {columns[title][row]:>{width}}" for title, width in widths.items())
        lines.append(name.ljust(NAME_WIDTH) + cells + f"  {verdict(summaries[row]) or '-'}")
    return "\n".join(lines)


def served_rate(summary: dict[str, Any]) -> float | None:
    """Requests per second that were served while requests came, without the drain where the summary knows it."""
    rate = summary.get("served_rate")
    return summary.get("request_throughput") if rate is None else float(rate)


def _verdict_words(names: Sequence[str], results: Sequence[Headline], groups: Sequence[int]) -> list[str]:
    summaries = [result.summary for result in results]
    lines = list(contest_lines(names, results, groups))
    if len(set(groups)) == len(groups) > 1:
        lines.append("No two of these runs serve the same requests, so none of them is called best.")
    elif len(set(groups)) > 1:
        lines.append("Stars and winners are among runs with the same requests only.")
    for judged, means in (
        ("overloaded", "latencies grow with the length of the run, so compare at a lower rate"),
        ("near saturation", "latencies may change much with the seed and the length of the run"),
    ):
        hit = [name for name, s in zip(names, summaries, strict=True) if verdict(s) == judged]
        if hit:
            lines.append(f"{judged.capitalize()}: {', '.join(hit)}; {means}.")
    needed = [(s.get("saturation", {}).get("evidence") or {}).get("requests_needed") for s in summaries]
    if few := [f"{name} (about {more:,} would)" for name, more in zip(names, needed, strict=True) if more]:
        what = "too few requests to tell whether latencies grow with their number"
        lines.append(f"Undetermined: {', '.join(few)}; {what}.")
    for name, summary in zip(names, summaries, strict=True):
        classes = (summary.get("slo") or {}).get("classes") or {}
        if len(classes) > 1:
            shares = (f"{key} {number(percent(found['attainment']))}%" for key, found in classes.items())
            lines.append(f"SLO by class, {name}: {', '.join(shares)}.")
        left = summary.get("sent", 0) - summary.get("completed", 0)
        if left:
            lines.append(f"{name} left {left} of {summary['sent']} requests unanswered; they are in no latency.")
    return [part for line in (*lines, *fleet_lines(names, summaries)) for part in wrapped(line)]


def contest_lines(names: Sequence[str], results: Sequence[Headline], groups: Sequence[int]) -> Iterator[str]:
    """Who wins each headline metric, among those that serve the same requests."""
    if len(results) < 2:
        return
    several = [group for group in dict.fromkeys(groups) if list(groups).count(group) > 1]
    leads = _leads(results, groups)
    for group in several if len(several) <= MOST_GROUPS else []:
        mine, lead = [at for at, of in enumerate(groups) if of == group], leads[group]
        short = [names[at].removesuffix(f", {lead.removesuffix(': ')}") for at in mine]
        for contest in CONTESTS:
            yield lead + contest_words(contest, short, [results[at].summary for at in mine])
    if several:
        sent = {result.summary.get("sent", 0) for result in results}
        of = f" of {sent.pop():,} requests" if len(sent) == 1 else ""
        yield f"One run each{of}; differences below {SAME:.0%} count as none."

def _leads(results: Sequence[Headline], groups: Sequence[int]) -> dict[int, str]:
    """What begins the sentences on each group, where there are several."""
    if len(set(groups)) < 2:
        return {0: ""}
    firsts = [results[list(groups).index(group)] for group in range(len(set(groups)))]
    told = differing([config_of(result) for result in firsts])
    parts = [told[part] for part in ("lengths", "load", "number", "seed") if part in told]
    return {
        group: ", ".join(words) + ": " if (words := [part[group] for part in parts]) else f"requests {group + 1}: "
        for group in range(len(firsts))
    }


def wrapped(line: str) -> list[str]:
    """Lines of at most WIDTH columns."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
