"""A specification and a seed give one workload, and each random stream moves only what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.request import NO_SLO, Request, SloClass
from llmsim.errors import ConfigError, TraceError
from llmsim.traces import twinfile
from llmsim.traces.schema import Trace
from llmsim.traces.twins import make_twin
from llmsim.traces.workload import (
    ArrivalsSpec,
    ClassSpec,
    DistributionSpec,
    LengthsSpec,
    Streams,
    Workload,
    WorkloadSpec,
    build_workload,
)

Write = Callable[..., Path]
POISSON = ArrivalsSpec(kind="poisson", rate=2.0)
SYNTHETIC = LengthsSpec(
    kind="synthetic",
    prompt=DistributionSpec(kind="uniform", low=1, high=1000),
    output=DistributionSpec(kind="lognormal", mean=100, std=50),
)
MIX = (
    ClassSpec(name="paying", share=0.05, tbt_s=0.1, priority=True),
    ClassSpec(name="free", share=0.95, tbt_s=0.5, tier=1),
)


@pytest.fixture
def trace(write: Write) -> str:
    rows = "".join(f"{i},{i + 1},{100 - i}\n" for i in range(50))
    return str(write("arrival_s,prompt_tokens,output_tokens\n" + rows))


@pytest.fixture
def twin(write: Write) -> str:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "arrival_ns": np.sort(rng.integers(0, 60 * 10**9, 400)),
            "prompt_tokens": rng.integers(1, 500, 400),
            "output_tokens": rng.integers(1, 50, 400),
        }
    )
    return str(write(twinfile.dump(make_twin(Trace.from_table(table), "small")), "small.json"))


def same(a: Workload, b: Workload, *names: str) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


LENGTHS = ("prompt_tokens", "output_tokens")


def test_a_trace_is_replayed_as_it_is(trace: str) -> None:
    workload = build_workload(WorkloadSpec(trace=trace), seed=1)
    assert workload.arrival_ns.tolist() == [i * 10**9 for i in range(50)]
    assert workload.prompt_tokens.tolist() == list(range(1, 51))
    assert workload.output_tokens.tolist() == list(range(100, 50, -1))
    assert workload.slo_classes == (NO_SLO,)
    assert workload.max_concurrency is None


def test_requests_carry_the_rows(trace: str) -> None:
    workload = build_workload(WorkloadSpec(trace=trace, classes=MIX), seed=1)
    requests = workload.requests()
    assert [r.id for r in requests] == list(range(50))
    assert all(isinstance(r, Request) and type(r.arrival_ns) is int for r in requests)
    assert [r.prompt_tokens for r in requests] == workload.prompt_tokens.tolist()
    assert {r.slo for r in requests} <= {c.slo() for c in MIX}
    assert workload.requests()[0] is not requests[0]


SPECS = [
    WorkloadSpec(lengths=SYNTHETIC, arrivals=POISSON, num_requests=200),
    WorkloadSpec(
        lengths=SYNTHETIC, arrivals=ArrivalsSpec(kind="gamma", rate=9.0, burstiness=0.1), num_requests=200
    ),
    WorkloadSpec(lengths=SYNTHETIC, arrivals=ArrivalsSpec(kind="all_at_once"), num_requests=200),
    WorkloadSpec(
        lengths=SYNTHETIC, arrivals=ArrivalsSpec(kind="ramp", ramp=((0, 1), (9, 3))), num_requests=200
    ),
]


@given(st.sampled_from(SPECS), st.sampled_from(SPECS), st.integers(0, 2**40))
@settings(max_examples=30)
def test_arrivals_never_change_lengths_or_classes(one: WorkloadSpec, other: WorkloadSpec, seed: int) -> None:
    assert same(build_workload(one, seed), build_workload(other, seed), *LENGTHS, "slo_index")


def test_each_stream_moves_only_its_own(twin: str) -> None:
    base = WorkloadSpec(trace=twin, num_requests=300, classes=MIX)
    workload = build_workload(base, 5)
    other_lengths = build_workload(
        WorkloadSpec(trace=twin, num_requests=300, classes=MIX, lengths=SYNTHETIC), 5
    )
    assert same(workload, other_lengths, "arrival_ns", "slo_index")
    assert not same(workload, other_lengths, "prompt_tokens")
    no_classes = build_workload(WorkloadSpec(trace=twin, num_requests=300), 5)
    assert same(workload, no_classes, "arrival_ns", *LENGTHS)


def test_equal_seeds_repeat_and_others_differ(twin: str) -> None:
    spec = WorkloadSpec(trace=twin, arrivals=POISSON, classes=MIX)
    columns = ("arrival_ns", *LENGTHS, "slo_index")
    assert same(build_workload(spec, 3), build_workload(spec, 3), *columns)
    for column in columns:
        assert not same(build_workload(spec, 3), build_workload(spec, 4), column)


def test_the_first_requests_are_those_of_a_shorter_run(twin: str) -> None:
    for options in ({"trace": twin}, {"lengths": SYNTHETIC}):
        long, short = (
            build_workload(WorkloadSpec(arrivals=POISSON, num_requests=n, classes=MIX, **options), 2)
            for n in (90, 30)
        )
        assert short.prompt_tokens.tolist() == long.prompt_tokens[:30].tolist()
        assert short.output_tokens.tolist() == long.output_tokens[:30].tolist()
        assert short.slo_index.tolist() == long.slo_index[:30].tolist()
        assert short.arrival_ns.tolist() == long.arrival_ns[:30].tolist()


def test_streams_are_in_a_fixed_order() -> None:
    children = np.random.SeedSequence(7).spawn(4)
    assert [s.spawn_key for s in Streams.of(7)] == [s.spawn_key for s in children]
    assert Streams._fields == ("arrivals", "lengths", "classes", "noise")
    for seed in (-1, 1.5, True, "x"):
        with pytest.raises(ConfigError, match="seed must be a whole number >= 0"):
            Streams.of(seed)  # type: ignore[arg-type]


def test_shuffle_moves_lengths_together_and_leaves_arrivals(trace: str) -> None:
    plain = build_workload(WorkloadSpec(trace=trace), 1)
    shuffled = build_workload(WorkloadSpec(trace=trace, shuffle=True), 1)
    assert same(plain, shuffled, "arrival_ns")
    assert not same(plain, shuffled, "prompt_tokens")
    assert sorted(shuffled.prompt_tokens.tolist()) == plain.prompt_tokens.tolist()
    assert (shuffled.prompt_tokens + shuffled.output_tokens == 101).all()


def test_more_requests_than_rows_need_resampling(trace: str) -> None:
    with pytest.raises(ConfigError, match=r"num_requests must be at most 50.*lengths.kind to 'resampled'"):
        build_workload(WorkloadSpec(trace=trace, num_requests=51, arrivals=POISSON), 1)
    with pytest.raises(ConfigError, match=r"at most 50 with arrivals.kind 'trace'"):
        build_workload(WorkloadSpec(trace=trace, num_requests=51, lengths=LengthsSpec(kind="resampled")), 1)
    for kind in ("resampled", "empirical"):
        spec = WorkloadSpec(trace=trace, num_requests=500, lengths=LengthsSpec(kind=kind), arrivals=POISSON)
        assert len(build_workload(spec, 1)) == 500
    resampled = build_workload(
        WorkloadSpec(trace=trace, num_requests=500, lengths=LengthsSpec(kind="resampled"), arrivals=POISSON),
        1,
    )
    assert (resampled.prompt_tokens + resampled.output_tokens == 101).all()


def test_time_scale_and_rate_stretch_the_trace(trace: str, twin: str) -> None:
    half = build_workload(WorkloadSpec(trace=trace, time_scale=0.5), 1)
    assert half.arrival_ns.tolist() == [i * 5 * 10**8 for i in range(50)]
    for name in (trace, twin):
        workload = build_workload(WorkloadSpec(trace=name, arrivals=ArrivalsSpec(rate=20.0)), 1)
        assert workload.description["mean_rate"] == pytest.approx(20.0)


def test_a_closed_loop_keeps_order_and_says_its_concurrency(trace: str) -> None:
    spec = WorkloadSpec(trace=trace, arrivals=ArrivalsSpec(kind="closed_loop", max_concurrency=8))
    workload = build_workload(spec, 1)
    assert workload.max_concurrency == 8
    assert not workload.arrival_ns.any()
    assert workload.prompt_tokens.tolist() == list(range(1, 51))


def test_classes_are_drawn_in_their_shares() -> None:
    spec = WorkloadSpec(lengths=SYNTHETIC, arrivals=POISSON, num_requests=20_000, classes=MIX)
    workload = build_workload(spec, 1)
    assert workload.slo_classes[0] == SloClass("paying", tbt_s=0.1, priority=True)
    assert (workload.slo_index == 0).mean() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 20_000) ** 0.5)


def test_classes_of_the_trace_are_kept_unless_replaced(write: Write) -> None:
    path = write(
        "arrival_s,prompt_tokens,output_tokens,slo_class,tbt_s,tier,priority\n0,1,1,a,0.1,2,true\n1,2,2,,,,\n2,3,3,a,0.1,2,true\n"
    )
    workload = build_workload(WorkloadSpec(trace=str(path)), 1)
    assert workload.slo_classes == (SloClass("a", tbt_s=0.1, tier=2, priority=True), SloClass("default"))
    assert workload.slo_index.tolist() == [0, 1, 0]
    replaced = build_workload(WorkloadSpec(trace=str(path), classes=MIX), 1)
    assert replaced.slo_classes == tuple(c.slo() for c in MIX)


def test_long_requests_follow_on_long(trace: str, twin: str, write: Write) -> None:
    with pytest.raises(
        TraceError, match="row 42, column 'prompt_tokens': '41' is longer than the model's limit of 40"
    ):
        build_workload(WorkloadSpec(trace=trace), 1, max_model_len=40)
    few = str(write("arrival_s,prompt_tokens,output_tokens\n0,30,10\n1,30,11\n2,40,1\n3,41,1\n", name="few.csv"))
    dropped = build_workload(WorkloadSpec(trace=few, on_long="drop"), 1, max_model_len=40)
    assert dropped.dropped == {"prompt_too_long": 1, "total_too_long": 2}
    assert dropped.prompt_tokens.tolist() == [30]
    # Otherwise only prompts stop the reading: an answer that is too long is the engine's business.
    assert len(build_workload(WorkloadSpec(trace=few), 1, max_model_len=41)) == 4
    clipped = build_workload(WorkloadSpec(trace=trace, on_long="clip"), 1, max_model_len=100)
    assert clipped.description["clipped"] == 50
    with pytest.raises(TraceError, match=r"drawn workload: request \d+, prompt_tokens: \d+ is longer"):
        build_workload(WorkloadSpec(trace=twin), 1, max_model_len=100)
    redrawn = build_workload(WorkloadSpec(trace=twin, on_long="drop"), 1, max_model_len=100)
    assert len(redrawn) == 400
    assert (redrawn.prompt_tokens + redrawn.output_tokens).max() <= 100
    assert 1600 < redrawn.dropped["prompt_too_long"] < 2800  # four of five draws
    assert 60 < redrawn.dropped["total_too_long"] < 250  # one of twenty
    shrunk = build_workload(WorkloadSpec(trace=twin, on_long="clip"), 1, max_model_len=100)
    assert (shrunk.prompt_tokens + shrunk.output_tokens <= 100).all()
    hopeless = LengthsSpec(
        kind="synthetic", prompt=DistributionSpec(value=500), output=DistributionSpec(value=1)
    )
    with pytest.raises(TraceError, match="none is within the model's limit of 100 tokens"):
        build_workload(
            WorkloadSpec(lengths=hopeless, arrivals=POISSON, num_requests=5, on_long="drop"),
            1,
            max_model_len=100,
        )


def test_lengths_only_need_another_kind_of_arrivals(write: Write) -> None:
    path = str(write("num_prefill_tokens,num_decode_tokens\n5,6\n7,8\n"))
    with pytest.raises(
        ConfigError, match=r"holds lengths only; give another kind, such as poisson with a rate"
    ):
        build_workload(WorkloadSpec(trace=path), 1)
    assert len(build_workload(WorkloadSpec(trace=path, arrivals=POISSON), 1)) == 2


def test_what_was_dropped_reaches_the_workload(write: Write) -> None:
    path = str(write("arrival_s,prompt_tokens,output_tokens\n0,5,6\n1,0,6\n2,5,6\n"))
    workload = build_workload(WorkloadSpec(trace=path, on_bad="drop"), 1)
    assert workload.dropped == workload.description["dropped"] == {"not_positive": 1}


def test_the_description_is_plain_json_with_the_digest(trace: str, twin: str) -> None:
    for spec in (
        WorkloadSpec(trace=trace, classes=MIX),
        WorkloadSpec(trace=twin, arrivals=ArrivalsSpec(kind="poisson", rate=float("inf"))),
        WorkloadSpec(lengths=SYNTHETIC, arrivals=ArrivalsSpec(kind="ramp", ramp=((0, 1),)), num_requests=3),
    ):
        description = build_workload(spec, 1).description
        assert json.loads(json.dumps(description, allow_nan=False)) == description
        if spec.trace:
            assert len(description["trace"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "workload.trace is needed for lengths.kind 'trace'"),
        ({"lengths": SYNTHETIC}, "workload.trace is needed for arrivals.kind 'trace'"),
        ({"lengths": SYNTHETIC, "arrivals": POISSON}, "workload.num_requests is needed"),
        ({"trace": "t", "num_requests": 0}, "workload.num_requests must be a whole number >= 1 but got 0"),
        ({"trace": "t", "time_scale": 0}, "workload.time_scale must be a number > 0 but got 0"),
        ({"trace": "t", "time_scale": 2.0, "arrivals": POISSON}, "set arrivals.rate instead"),
        ({"trace": "t", "time_scale": 2.0, "arrivals": ArrivalsSpec(rate=1.0)}, "give one of them"),
        ({"trace": "t", "on_bad": "skip"}, "workload.on_bad must be one of error, drop but got 'skip'"),
        ({"trace": "t", "on_long": "skip"}, "workload.on_long must be one of error, drop, clip"),
        ({"trace": "t", "format": "azur"}, "Did you mean 'azure'"),
        ({"trace": "t", "time_unit": "h"}, "workload.time_unit must be one of"),
        ({"trace": "t", "classes": MIX[:1]}, "shares must sum to 1 but sum to 0.05"),
        ({"trace": "t", "classes": (MIX[0], MIX[0])}, "must have different names"),
    ],
)
def test_a_specification_that_does_not_fit_says_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorkloadSpec(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "share must be a number >= 0 and <= 1 but got 1.5"),
        ({"tbt_s": 0}, "tbt_s must be a number > 0 but got 0"),
        ({"tier": -1}, "tier must be a whole number >= 0 but got -1"),
        ({"priority": "yes"}, "priority must be true or false but got 'yes'"),
        ({"name": ""}, "name must be a word"),
    ],
)
def test_a_class_that_makes_no_sense_says_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassSpec(**options)
