"""Tally: everything a summary is made of, added up over tables of any size, each request and iteration once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError
from llmsim.metrics.attainment import Attainment
from llmsim.metrics.by_model import ByModel
from llmsim.metrics.latency import Definitions, check_definitions, elapsed_ns, itl_samples, tpot_ns, ttft_ns
from llmsim.metrics.load import EVERYTHING, EXACT_TIMES, Load
from llmsim.metrics.rates import Rates, tokens_inside
from llmsim.metrics.samples import EXACT_VALUES, Sample
from llmsim.metrics.slo import Slo, TbtRule
from llmsim.metrics.timeline import Mask, Timeline, ints
from llmsim.metrics.usage import Presence, Span, Usage
from llmsim.units import to_ns

LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyOptions:
    """What is measured and how; fields as the arguments of `summarize`.

    Raises ConfigError for unknown definitions, percentiles outside 0-100, or replicas < 1.
    """

    definitions: Definitions = "vllm"
    slo: Slo | None = None
    tbt_rule: TbtRule = "max"
    warmup_s: float = 0
    kv_num_blocks: int | Sequence[int] | None = None
    replicas: int = 1
    percentiles: tuple[float, ...] = ()
    of_classes: tuple[float, ...] = ()
    """Percentiles that classes and models have besides their own."""
    first_token_at_prefill_end: bool | None = None
    members: Mapping[str, Sequence[int]] | None = None
    """The replicas of each model, where requests name models: for the part `models`."""
    targets_expected: bool = False
    """Some request will carry a target, even if none of the first ones does."""

    def __post_init__(self) -> None:
        check_definitions(self.definitions)
        wrong = [p for p in (*self.percentiles, *self.of_classes) if not 0 <= p <= 100]
        if wrong:
            raise ConfigError(f"percentiles must be from 0 to 100 but got {wrong[0]}")
        if self.replicas < 1:
            raise ConfigError(f"replicas must be at least 1 but got {self.replicas}")


class Tally:
    """`span` is the measured stretch of the clock; where its end is not known yet, the latest it may be.

    Up to `limit` different values a sample is exact, and so is what the verdict on the load looks at (times up to
    EXACT_TIMES); EVERYTHING keeps all of it exact.
    """

    def __init__(self, options: TallyOptions, span: Span, *, limit: int = EXACT_VALUES) -> None:
        self.options, self.span, self.limit = options, span, limit
        self.latencies = {name: Sample(limit) for name in LATENCIES}
        self.attainment = Attainment(
            options.slo,
            options.definitions,
            options.tbt_rule,
            options.first_token_at_prefill_end,
            limit,
            expected=options.targets_expected,
            percentiles=options.of_classes,
        )
        self.usage = Usage(span, options.kv_num_blocks)
        self.load = Load(limit=EVERYTHING if limit == EVERYTHING else EXACT_TIMES)
        self.counts: Counter[str] = Counter()
        self.rates = Rates()
        self.last_finish_ns = 0
        self.models = ByModel(
            options.members or {},
            options.definitions,
            options.first_token_at_prefill_end,
            limit,
            self.load.limit,
            percentiles=options.of_classes,
        )

    def add(self, requests: pd.DataFrame, timeline: Timeline, iterations: pd.DataFrame) -> None:
        """Both at once."""
        self.add_requests(requests, timeline)
        self.add_iterations(iterations)

    def add_iterations(self, iterations: pd.DataFrame) -> None:
        """Further rows of the iteration table, sorted by replica and time, later than those before."""
        self.load.busy.add(iterations)
        self.models.add_iterations(iterations, self.span)
        self.usage.add(iterations)

    def end(self, end_ns: int) -> None:
        """The measured stretch ends here, at the last completion, or later if something was cut off; to be said before
        anything is added that may lie past it."""
        self.span = self.usage.span = replace(self.span, end_ns=max(self.span.start_ns, end_ns))

    def run_end_ns(self, horizon_ns: int | None) -> int:
        """The last completion; the horizon, if that cut requests off."""
        cut_off = self.counts["unfinished"] > 0 and horizon_ns is not None
        return max(self.last_finish_ns, horizon_ns or 0) if cut_off else self.last_finish_ns

    def were_there(self, presence: Presence | None) -> None:
        """When the replicas were there, if not all the time; known when the run is over."""
        self.span = self.usage.span = replace(self.span, presence=presence)

    def add_requests(self, requests: pd.DataFrame, timeline: Timeline) -> None:
        """Requests that are done with and when their tokens came."""
        measured = ints(requests, "arrival_ns") >= to_ns(self.options.warmup_s)
        finished = (requests["status"] == "finished").to_numpy(dtype=bool)
        self._count(requests, measured, finished)
        self.load.add_requests(requests)
        if "first_scheduled_ns" in requests:
            self.usage.add_requests(requests)
        self._add_latencies(requests, timeline, measured, finished)
        self.attainment.add(requests, timeline, measured, self.span)
        tokens = tokens_inside(requests, timeline, self.span)
        self.rates.add(requests, tokens, self.span)
        self.models.add_requests(requests, timeline, measured, tokens, self.span)

    def _count(self, requests: pd.DataFrame, measured: Mask, finished: Mask) -> None:
        generated = ints(requests, "generated")
        self.last_finish_ns = max(self.last_finish_ns, int(ints(requests, "finish_ns").max(initial=0)))
        counts = self.counts
        counts["sent"] += len(requests)
        for status in ("finished", "unfinished", "rejected"):
            counts[status] += int((requests["status"] == status).sum())
        counts["measured"] += int(measured.sum())
        counts["measured_finished"] += int((measured & finished).sum())
        counts["output_tokens_of_unfinished"] += int(generated[~finished].sum())
        if "preemptions" in requests:
            preemptions = ints(requests, "preemptions")
            counts["preemptions"] += int(preemptions.sum())
            counts["preempted_requests"] += int((preemptions > 0).sum())
        if "cached_tokens" in requests:
            self._count_cached(requests)

    def _count_cached(self, requests: pd.DataFrame) -> None:
        cached = ints(requests, "cached_tokens")
        admitted = cached >= 0
        counts = self.counts
        counts["admitted"] += int(admitted.sum())
        counts["admitted_prompt_tokens"] += int(ints(requests, "prompt_tokens")[admitted].sum())
        counts["cached_tokens"] += int(cached[admitted].sum())
        counts["requests_with_hit"] += int((cached > 0).sum())

    def _add_latencies(self, requests: pd.DataFrame, timeline: Timeline, measured: Mask, finished: Mask) -> None:
        options, keep = self.options, measured & finished
        each = {
            "ttft": ttft_ns(requests, options.definitions),
            "tpot": tpot_ns(requests),
            "e2el": elapsed_ns(requests, "finish_ns"),
            "queue": elapsed_ns(requests, "first_scheduled_ns"),
        }
        for name, values in each.items():
            self.latencies[name].add(values[keep & ~np.isnan(values)])
        gaps = itl_samples(requests, timeline, measured, options.definitions, options.first_token_at_prefill_end)
        self.latencies["itl"].add(*gaps)
