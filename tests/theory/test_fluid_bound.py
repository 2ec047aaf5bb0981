"""The fluid bound: right by hand, never exceeded by any policy, and nearly reached where nothing is in the way."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.costs.calibration import load_calibration, read_calibration
from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import load_runs
from llmsim.theory.fluid import Node, fluid_capacity, fluid_capacity_of
from llmsim.traces.workload import Workload, build_workload

SHIPPED = ("rtx-6000-ada/mistral-7b", "a100/llama-3-8b", "h100/llama-3.1-8b", "rtx-pro-6000/llama-3.1-8b")


@pytest.fixture(scope="module")
def calibration_of(tmp_path_factory):
    """Calibration files with a batch-time part of one's own."""

    def make(batch_time):
        held = json.loads(load_calibration("a100/llama-3-8b").to_json())
        held["batch_time"] = copy.deepcopy(batch_time)
        path = tmp_path_factory.mktemp("calibration") / "own.json"
        path.write_text(json.dumps(held))
        return read_calibration(path), str(path)

    return make


def linear(**values):
    units = {"constant": "s", "floor": "s", "per_tile": "s/tile", "per_prefill_attention": "s/pair"}
    return {n: {"value": v, "unit": units.get(n, "s/token"), "source": "test"} for n, v in values.items()}


def test_a_linear_model_by_hand(calibration_of):
    """Prompts of 100, outputs of 11: 110 tokens, 10 decodes at 101 to 110 tokens, 5,050 pairs."""
    coefficients = linear(constant=2e-3, per_token=1e-5, per_decode_context=1e-7, per_prefill_attention=1e-9)
    calibration, _ = calibration_of({"form": "linear", "coefficients": coefficients})
    bound = fluid_capacity(calibration, [100], [11], token_budget=50, num_blocks=10**9)
    assert bound.linear_s == pytest.approx(110 * 1e-5 + 2e-3 * 110 / 50)
    assert bound.decode_context_s == pytest.approx(1e-7 * sum(range(101, 111)))
    assert bound.prefill_attention_s == pytest.approx(1e-9 * 5050)
    assert bound.rps == pytest.approx(1 / bound.seconds)
    assert fluid_capacity(calibration, [100], [11], token_budget=50, replicas=3).rps == pytest.approx(3 * bound.rps)
    few = fluid_capacity(calibration, [100], [11], max_num_seqs=4)
    assert few.linear_s == pytest.approx(110 * 1e-5 + 2e-3 * 10 / 4)


def test_a_floor_and_a_tile_by_hand(calibration_of):
    hinge, _ = calibration_of({"form": "hinge", "coefficients": linear(floor=5e-3, constant=1e-3, per_token=1e-5)})
    assert fluid_capacity(hinge, [100], [1], token_budget=100).linear_s == pytest.approx(5e-3)
    assert fluid_capacity(hinge, [1000], [1], token_budget=1000).linear_s == pytest.approx(11e-3)
    tiled = {"form": "tiled", "tile_tokens": 128, "coefficients": linear(per_tile=4e-3, per_token=5e-6)}
    bound = fluid_capacity(calibration_of(tiled)[0], [1280], [1])
    assert bound.linear_s == pytest.approx(10 * 4e-3 + 1280 * 5e-6)


def test_memory_bounds_the_decodes_of_an_iteration(calibration_of):
    """4 blocks of 16 tokens hold two sequences of at most 32 tokens: an iteration for every two decodes."""
    calibration, _ = calibration_of({"form": "linear", "coefficients": linear(constant=1e-3, per_token=1e-9)})
    bound = fluid_capacity(calibration, [16], [17], num_blocks=4)
    assert bound.linear_s == pytest.approx(1e-3 * sum(range(17, 33)) / 64, rel=1e-3)


def test_every_limit_lowers_the_bound_or_leaves_it():
    calibration = load_calibration(SHIPPED[0])
    rng = np.random.default_rng(0)
    prompt, output = rng.integers(10, 3000, 200), rng.integers(2, 600, 200)
    free = fluid_capacity(calibration, prompt, output).rps
    for limit in ({"token_budget": 256}, {"max_num_seqs": 16}, {"num_blocks": 800}):
        assert fluid_capacity(calibration, prompt, output, **limit).rps < free
    assert "% decode context" in fluid_capacity(calibration, prompt, output).describe()


def test_kinds_that_suit_different_requests_do_more_than_the_sum_of_their_bounds(calibration_of):
    """One kind is cheap in prompts and one in decodes; each alone is slow on the mix, and a router need not mix."""
    cheap, dear = 1e-6, 1e-3
    prompts, _ = calibration_of(
        {"form": "linear", "coefficients": linear(constant=1e-6, per_prefill_token=cheap, per_decode_token=dear)}
    )
    decodes, _ = calibration_of(
        {"form": "linear", "coefficients": linear(constant=1e-6, per_prefill_token=dear, per_decode_token=cheap)}
    )
    mix = ([1000, 1], [1, 1001])
    alone = [fluid_capacity(kind, *mix).rps for kind in (prompts, decodes)]
    both = fluid_capacity_of([Node(prompts), Node(decodes)], *mix).rps
    apart = min(fluid_capacity(prompts, [1000], [1]).rps, fluid_capacity(decodes, [1], [1001]).rps)
    assert sum(alone) < 5 < 1.9 * apart < both


def test_equal_kinds_are_as_good_as_one_kind_of_more_replicas():
    calibration = load_calibration(SHIPPED[0])
    kinds = [Node(calibration, 2), Node(calibration, 1)]
    split = fluid_capacity_of(kinds, [500, 90], [80, 300])
    assert split.rps == pytest.approx(fluid_capacity(calibration, [500, 90], [80, 300], replicas=3).rps, rel=1e-5)


def test_the_clock_scales_the_bound(calibration_of):
    """Context tokens cost less seconds than the solver's absolute tolerances: unscaled, this was 0.05 % too low."""
    names = ("constant", "per_token", "per_decode_context", "per_prefill_attention", "per_prefill_context")
    femtoseconds = {
        80: (14_417_511_148, 1_494_784_656, 89_577_569, 441, 35_296),
        404: (790_693_416_448, 47_191_789, 1_261, 1_426, 4_389),
        None: (109_754_340_404, 134_925_569, 1_220, 414, 19_713),
    }
    rates = []
    for second in (1e15, 1e11):
        strata = [
            {"form": "linear", "coefficients": linear(**{n: v / second for n, v in zip(names, row, strict=True)})}
            | ({} if most is None else {"max_tokens": most})
            for most, row in femtoseconds.items()
        ]
        calibration, _ = calibration_of({"form": "stratified", "strata": strata})
        rates.append(fluid_capacity(calibration, [7138], [5], token_budget=2194, max_num_seqs=142).rps / second)
    assert rates[0] / rates[1] == pytest.approx(1, rel=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    calibration=st.sampled_from(SHIPPED),
    policy=st.sampled_from(
        [
            ("sarathi,chunk_size=256,max_num_seqs=32", 256, 32),
            ("vllm_v1,max_num_batched_tokens=1024,max_num_seqs=64", 1024, 64),
            ("vllm_v0", None, 128),
            ("rad,tile=64", None, 64),
            ("slai,token_budget=256", 256, 128),
        ]
    ),
    longest=st.sampled_from([20, 300, 3000]),
    outputs=st.sampled_from([1, 40, 300]),
)
def test_no_policy_exceeds_the_bound(seed, calibration, policy, longest, outputs):
    rng = np.random.default_rng(seed)
    prompt, output = rng.integers(1, longest + 1, 60), rng.integers(1, outputs + 1, 60)
    zeros = np.zeros(60, dtype=np.int64)
    line, budget, places = policy
    spec = load_runs(
        mapping={
            "calibration": calibration,
            "scheduler": line,
            "engine": {"num_blocks": 900},
            "workload": {"trace": "sharegpt4", "arrivals": {"kind": "all_at_once"}},
        }
    )[0]
    result = simulate(spec, workload=Workload(zeros, prompt, output, zeros))
    bound = fluid_capacity(
        load_calibration(calibration), prompt, output, token_budget=budget, max_num_seqs=places, num_blocks=900
    )
    makespan = result.requests["finish_ns"].max() / 1e9
    assert 60 / makespan <= bound.rps * (1 + 1e-9)


@pytest.mark.parametrize(("trace", "share"), [("azure-code", 0.98), ("sharegpt4", 0.93)])
def test_a_busy_replica_nearly_reaches_it(trace, share):
    spec = load_runs(
        mapping={
            "calibration": SHIPPED[0],
            "scheduler": "sarathi,chunk_size=512",
            "workload": {"trace": trace, "num_requests": 1000, "arrivals": {"kind": "all_at_once"}},
        }
    )[0]
    drawn = build_workload(spec.workload, spec.seed)
    bound = fluid_capacity(
        load_calibration(SHIPPED[0]), drawn.prompt_tokens, drawn.output_tokens, token_budget=512, max_num_seqs=128
    )
    reached = simulate(spec).summary["request_throughput"] / bound.rps
    assert share < reached <= 1


@pytest.mark.parametrize(
    ("lengths", "limits", "message"),
    [
        (([], []), {}, "all at least 1 token"),
        (([5], [0]), {}, "all at least 1 token"),
        (([5, 6], [1]), {}, "2 prompts and 1 outputs"),
        (([5], [1]), {"token_budget": 0}, "token_budget must be at least 1"),
        (([5], [1]), {"replicas": 0}, "replicas must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(lengths, limits, message):
    with pytest.raises(ConfigError, match=message):
        fluid_capacity(load_calibration(SHIPPED[0]), *lengths, **limits)
