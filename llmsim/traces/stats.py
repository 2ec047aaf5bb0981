"""Facts about a workload: size, rate, quantiles of lengths, burstiness, dependence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.traces.file_times import MANY_SHIFTED_NS, doubts
from llmsim.traces.reuse import reuse_facts
from llmsim.traces.schema import LENGTHS, Trace
from llmsim.units import SECOND

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
Floats = NDArray[np.float64]

_FEWEST_WINDOWS = 30
"""Below this a dispersion says little, and the last window, which the trace fills in part, too much."""


_COUNTED = 1 << 22
"""Lengths below this are ranked by counting each, longer ones by sorting."""


def trace_stats(
    trace: Trace, hash_block_size: int | None = None, prompts: Trace | None = None
) -> dict[str, Any]:
    """JSON-ready facts; arrival facts are absent for a trace that holds lengths only, `prefix_cache` (`reuse_facts`,
    of `prompts` if given) for one without hash_ids.

    `gap_cv` is the coefficient of variation of the gaps between arrivals (1 = Poisson), `idc_1s` and
    `idc_60s` the variance over the mean of the arrivals counted in windows of 1 s and 60 s (1 = Poisson),
    `peak_60s_rate` the rate of the fullest 60 s window.
    """
    lengths = [trace.requests[name].to_numpy(dtype=np.int64) for name in LENGTHS]
    prompt, output = (tokens.astype(np.float64) for tokens in lengths)
    facts: dict[str, Any] = {
        "name": trace.name,
        "source": trace.source,
        "format": trace.format,
        "sha256": trace.sha256,
        "rows": len(prompt),
        "dropped": dict(trace.dropped),
        "clipped": trace.clipped,
        **({} if trace.moved is None else {"moved": trace.moved}),
        "prompt_tokens": _length_facts(lengths[0], prompt),
        "output_tokens": _length_facts(lengths[1], output),
        "correlation": {
            "pearson": _pearson(prompt, output),
            "spearman": _pearson(*map(_ranks, lengths)),
        },
    }
    if trace.has_arrivals:
        facts["arrivals"] = _arrival_facts(trace.requests["arrival_ns"].to_numpy())
    notes = list(doubts(trace))
    try:
        if reuse := reuse_facts(prompts or trace, hash_block_size):
            facts["prefix_cache"] = reuse
    except ConfigError as error:  # of its lengths and times there are facts all the same
        if hash_block_size is not None:
            raise
        notes.append(f"no hit rate of an infinite prefix cache: {error}")
    return facts | ({"notes": notes} if notes else {})


def _length_facts(lengths: NDArray[np.int64], tokens: Floats) -> dict[str, float]:
    """Mean, extremes and quantiles in tokens, of the same lengths as whole numbers and as floats."""
    quantiles = _quantiles(lengths)
    named = {f"p{100 * q:g}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)}
    return {
        "total": float(tokens.sum()),
        "mean": float(tokens.mean()),
        "std": float(tokens.std()),
        "min": float(tokens.min()),
        **named,
        "max": float(tokens.max()),
    }


def _quantiles(lengths: NDArray[np.int64]) -> Floats:
    """What `np.quantile` gives for QUANTILES, bit for bit; by counting each length, which takes no sorting."""
    values: Floats
    if lengths.max() >= _COUNTED:
        values = np.quantile(lengths.astype(np.float64), QUANTILES)
        return values
    below = np.cumsum(np.bincount(lengths))
    at = np.array(QUANTILES) * (len(lengths) - 1)
    low, share = np.floor(at), at - np.floor(at)
    first = np.searchsorted(below, low, side="right").astype(np.float64)
    second = np.searchsorted(below, np.minimum(low + 1, len(lengths) - 1), side="right").astype(np.float64)
    gap = second - first
    values = np.where(share >= 0.5, second - gap * (1 - share), first + gap * share)
    return values


def _arrival_facts(arrival_ns: NDArray[np.int64]) -> dict[str, float | None]:
    """Span, rate and burstiness; None where there are too few arrivals for a number."""
    since = arrival_ns - arrival_ns[0]
    span_s = float(since[-1]) / SECOND
    minutes = _window_counts(since, 60)
    gaps = np.diff(arrival_ns).astype(np.float64)
    mean = float(gaps.mean()) if len(gaps) else 0.0
    return {
        "first_s": float(arrival_ns[0]) / SECOND,
        "span_s": span_s,
        "rate": len(since) / span_s if span_s > 0 else None,
        "gap_cv": float(gaps.std()) / mean if mean > 0 else None,
        "zero_gaps": float((gaps == 0).mean()) if len(gaps) else None,
        "idc_1s": _dispersion(_window_counts(since, 1), int(since[-1]), 1),
        "idc_60s": _dispersion(minutes, int(since[-1]), 60),
        "peak_60s_rate": float(minutes.max()) / min(60, span_s or 60),
    }


def _window_counts(since_ns: NDArray[np.int64], window_s: int) -> NDArray[np.int64]:
    """Arrivals in each window that has any; times are sorted."""
    window = since_ns // (window_s * SECOND)
    last = np.flatnonzero(np.diff(window, append=-1))
    return np.diff(last, prepend=-1)


def _dispersion(counts: NDArray[np.int64], span_ns: int, window_s: int) -> float | None:
    """Variance over mean of the arrivals per window, over all windows from the first arrival to the last."""
    windows = span_ns // (window_s * SECOND) + 1
    if windows < _FEWEST_WINDOWS:
        return None
    mean = counts.sum() / windows
    # Empty windows are not listed (a sparse trace may have billions): each adds a square of 0.
    return float((counts.astype(np.float64) ** 2).sum() / windows - mean**2) / float(mean)


def _pearson(x: Floats, y: Floats) -> float | None:
    """Linear correlation; None if either does not vary."""
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(tokens: NDArray[np.int64]) -> Floats:
    """Ranks from 0, equal values sharing the mean of theirs."""
    if tokens.max() < _COUNTED:
        place, counts = tokens, np.bincount(tokens)
    else:
        _, place, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks: Floats = (below + (counts - 1) / 2)[place]
    return ranks


def format_stats(facts: dict[str, Any]) -> str:
    """The facts as a table for a terminal."""
    lines = [f"{facts['name']}: {facts['rows']:,} requests ({facts['format']}; {facts['source']})"]
    if facts["dropped"]:
        lines.append(
            "dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in facts["dropped"].items())
        )
    if facts["clipped"]:
        lines.append(f"clipped: {facts['clipped']:,} requests scaled down to the limit")
    if "moved" in facts:
        lines.append(f"sorted: {facts['moved']:,} rows moved")
    columns = [name for name in facts["prompt_tokens"] if name != "total"]
    lines += ["", " " * 14 + "".join(f"{name:>9}" for name in columns)]
    for length in ("prompt_tokens", "output_tokens"):
        lines.append(f"{length:<14}" + "".join(f"{facts[length][name]:>9,.0f}" for name in columns))
    correlation = facts["correlation"]
    lines += ["", f"prompt-output correlation: {_text(correlation['spearman'])} (Spearman), "]
    lines[-1] += f"{_text(correlation['pearson'])} (Pearson)"
    return "\n".join([*lines, *_arrival_lines(facts.get("arrivals")), *_reuse_lines(facts.get("prefix_cache"))])


def _arrival_lines(arrivals: dict[str, float | None] | None) -> list[str]:
    """Lines about arrivals."""
    if arrivals is None:
        return ["arrivals: none in the file (lengths only)"]
    begin = arrivals["first_s"] or 0
    first = "" if begin * SECOND < MANY_SHIFTED_NS else f" (the first at {begin:,.10g} s of the file's clock)"
    return [
        f"arrivals: {_text(arrivals['span_s'])} s{first}, {_text(arrivals['rate'])} requests/s on average, "
        f"{_text(arrivals['peak_60s_rate'])}/s in the fullest minute",
        f"burstiness (Poisson = 1): CV of gaps {_text(arrivals['gap_cv'])}, dispersion of counts "
        f"{_text(arrivals['idc_1s'])} in 1 s, {_text(arrivals['idc_60s'])} in 60 s",
    ]


def _reuse_lines(reuse: dict[str, Any] | None) -> list[str]:
    """A line about prompts that begin alike."""
    if reuse is None:
        return []
    tokens, requests = (f"{100 * reuse[name]:.1f} %" for name in ("token_hit_rate", "request_hit_rate"))
    return [
        f"prefixes (hash_ids of {reuse['hash_block_size']} tokens): an infinite cache finds {tokens} of the prompt "
        f"tokens, something for {requests} of the requests"
    ]


def _text(value: float | None) -> str:
    """Four digits, '-' for none."""
    return "-" if value is None else f"{value:.4g}"
