"""Statistical twins: a workload described by quantiles and rank dependence, small enough to read and ship.

A twin holds, per length, values at some 400 probabilities (atoms show as repeated values); the joint ranks as
a grid of counts (an empirical copula); and for files with arrivals a profile of them. It holds no row of the
original. What it does not keep: how lengths depend on time or on the request before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import TraceError
from llmsim.traces import files
from llmsim.traces.profile import ArrivalProfile, measure_profile
from llmsim.traces.schema import Trace
from llmsim.traces.sources import BY_DIGEST
from llmsim.traces.twinfile import KIND, VERSION, is_twin

CELLS = 40
_STEPS = 400
_TAIL = (0.0001, 0.0002, 0.0005, 0.001, 0.0015, 0.002)
"""Finer probabilities at both ends: a straight line from the last 1/400 to the maximum is too long a tail."""


@dataclass(frozen=True, slots=True)
class Marginal:
    """Quantiles of one length: `value[i]` tokens at `probability[i]` (from 0 to 1), shape (knots,) each."""

    probability: NDArray[np.float64]
    value: NDArray[np.float64]

    def at(self, u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Tokens at probabilities `u`, any shape: linear between knots, rounded, at least 1."""
        return np.maximum(np.rint(np.interp(u, self.probability, self.value)), 1).astype(np.int64)


@dataclass(frozen=True)
class Twin:
    """A twin in memory; `rows` is the number of requests of the original."""

    name: str
    rows: int
    prompt: Marginal
    output: Marginal
    copula: NDArray[np.int64]
    arrivals: ArrivalProfile | None
    sha256: str = ""

    @property
    def has_arrivals(self) -> bool:
        """Whether the original had arrival times."""
        return self.arrivals is not None

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        """Upper end of each copula cell on [0, 1], row by row."""
        share: NDArray[np.float64] = np.cumsum(self.copula.ravel()) / self.copula.sum()
        return share

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Prompt and output tokens of n independent requests; the first m of them are those of draw(m)."""
        uniform = rng.random((n, 3))
        cell = np.searchsorted(self._cumulative, uniform[:, 0], side="right")
        rows, columns = self.copula.shape
        row, column = np.divmod(np.minimum(cell, self.copula.size - 1), columns)
        prompt = self.prompt.at((row + uniform[:, 1]) / rows)
        return prompt, self.output.at((column + uniform[:, 2]) / columns)


def sample(twin: Twin, n: int | None = None, seed: int = 0) -> Trace:
    """A trace of n requests drawn from a twin (None: as many as its original had), arrivals included."""
    import pandas as pd  # only where a table is made

    arrivals, lengths = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    count = twin.rows if n is None else n
    prompt, output = twin.draw(count, lengths)
    table = pd.DataFrame({"prompt_tokens": prompt, "output_tokens": output})
    if twin.arrivals is not None:
        table.insert(0, "arrival_ns", twin.arrivals.draw(count, arrivals))
    source = f"drawn from the twin {twin.name}, seed {seed}"
    return Trace(requests=table, name=twin.name, source=source, format="twin", sha256=twin.sha256)


def make_twin(trace: Trace, name: str | None = None, cells: int = CELLS) -> dict[str, Any]:
    """JSON-ready twin of a trace.

    Provenance and licence are filled in for the public files that llmsim knows.
    """
    prompt = trace.requests["prompt_tokens"].to_numpy()
    output = trace.requests["output_tokens"].to_numpy()
    probability = _probabilities()
    twin: dict[str, Any] = {
        "kind": KIND,
        "version": VERSION,
        "name": name or trace.name,
        "provenance": _provenance(trace, name or trace.name),
        "rows": len(prompt),
        "probability": probability.tolist(),
        "prompt_tokens": _quantiles(prompt, probability),
        "output_tokens": _quantiles(output, probability),
        "copula": _copula(prompt, output, cells).tolist(),
    }
    if trace.has_arrivals and len(prompt) > 1:
        profile = measure_profile(trace.requests["arrival_ns"].to_numpy())
        twin["arrivals"] = {
            "slot_s": profile.slot_s,
            "counts": profile.counts.tolist(),
            "gaps": profile.gaps.tolist(),
        }
    return twin


def load_twin(path: str | Path) -> Twin:
    """The twin in a file; TraceError if it is none or damaged."""
    data = files.read_bytes(path)
    if not is_twin(data):
        raise TraceError(
            f"{path}: row 1 does not begin a twin; make one with `llmsim trace twin FILE --out TWIN.json`"
        )
    try:
        return parse_twin(json.loads(data), sha256=files.sha256(data))
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(
            f"{path}: damaged twin ({type(error).__name__}: {error}); make it again as its 'remake' key says"
        ) from None


def parse_twin(data: dict[str, Any], sha256: str = "") -> Twin:
    """A twin from its JSON form; ValueError or KeyError if that is not one."""
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']!r} is not {VERSION}, the one this release reads")
    probability = np.asarray(data["probability"], dtype=np.float64)
    copula = np.asarray(data["copula"], dtype=np.int64)
    if copula.ndim != 2 or copula.min() < 0 or copula.sum() < 1:
        raise ValueError("copula must be a table of counts >= 0")
    return Twin(
        name=str(data["name"]),
        rows=int(data["rows"]),
        prompt=_marginal(probability, data["prompt_tokens"]),
        output=_marginal(probability, data["output_tokens"]),
        copula=copula,
        arrivals=_profile(data["arrivals"]) if "arrivals" in data else None,
        sha256=sha256,
    )


def _marginal(probability: NDArray[np.float64], values: list[int]) -> Marginal:
    """Checked quantiles; ValueError if they do not rise from probability 0 to 1."""
    value = np.asarray(values, dtype=np.float64)
    rising = (
        len(probability) > 1
        and (np.diff(probability) > 0).all()
        and probability[0] == 0
        and probability[-1] == 1
    )
    if value.shape != probability.shape or not rising or (np.diff(value) < 0).any() or value[0] < 1:
        raise ValueError(
            "quantiles must be lengths >= 1 that never fall, one for each probability from 0 to 1"
        )
    return Marginal(probability, value)


def _profile(data: dict[str, Any]) -> ArrivalProfile:
    """Checked arrival profile; ValueError if it cannot be drawn from."""
    counts = np.asarray(data["counts"], dtype=np.int64)
    gaps = np.asarray(data["gaps"], dtype=np.float64)
    if counts.min() < 0 or counts.sum() < 1 or data["slot_s"] < 1:
        raise ValueError("arrivals need counts >= 0 with at least one arrival, and slot_s >= 1")
    if len(gaps) < 2 or not (gaps >= 0).all() or (np.diff(gaps) < 0).any():
        raise ValueError("quantiles of gaps must be >= 0 and never fall")
    return ArrivalProfile(slot_s=int(data["slot_s"]), counts=counts, gaps=gaps)


def _probabilities() -> NDArray[np.float64]:
    """Where quantiles are taken: every 1/400 and finer at both ends."""
    even = np.arange(_STEPS + 1) / _STEPS
    return np.unique(np.concatenate((even, _TAIL, [round(1 - p, 6) for p in _TAIL])))


def _quantiles(lengths: NDArray[np.int64], probability: NDArray[np.float64]) -> list[int]:
    """Observed values at the probabilities: the smallest length with at least that share at or below it."""
    values: list[int] = np.quantile(lengths, probability, method="inverted_cdf").astype(np.int64).tolist()
    return values


def _copula(prompt: NDArray[np.int64], output: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """Counts of requests per cell of (prompt rank, output rank), shape (cells, cells).

    Equal lengths are ranked at random (fixed seed), so an atom spreads over its cells evenly; file order
    would leak time into the ranks.
    """
    order = np.random.default_rng(0).permutation(len(prompt))
    row, column = _rank_cell(prompt[order], cells), _rank_cell(output[order], cells)
    return np.bincount(row * cells + column, minlength=cells * cells).reshape(cells, cells)


def _rank_cell(lengths: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """Cell of each length's rank; ties in the order given."""
    rank = np.empty(len(lengths), dtype=np.int64)
    rank[np.argsort(lengths, kind="stable")] = np.arange(len(lengths))
    return rank * cells // len(lengths)


def _provenance(trace: Trace, name: str) -> dict[str, Any]:
    """Where the twin's numbers come from, under which licence, and how to make it again."""
    known = BY_DIGEST.get(trace.sha256)
    fetch = f"llmsim trace fetch {known.name} --out . && " if known else ""
    file = known.file_name if known else Path(trace.source).name
    facts = {
        "made_by": "llmsim.traces.twins.make_twin",
        "remake": f"{fetch}llmsim trace twin {file} --name {name} --out traces/{name}.json",
        "source_file": file,
        "source_sha256": trace.sha256,
    }
    if trace.dropped:
        facts["dropped"] = json.dumps(trace.dropped)
    if known is None:
        return facts
    return {
        "derived_from": known.credit,
        "url": known.url,
        "licence": f"{known.licence} (the original; here are only its quantiles and frequencies)",
        **facts,
    }
