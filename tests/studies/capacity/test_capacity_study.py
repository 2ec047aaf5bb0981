"""Capacity of real, small simulations: the answer by brute force, common random numbers, the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmsim.errors import ConfigError
from llmsim.runs.headline import to_json
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import ClusterSpec, GroupSpec, RunSpec, load_runs
from llmsim.studies.capacity import Criterion, Plan, find_capacity
from llmsim.studies.capacity.bound import fluid_bound_rps
from llmsim.studies.capacity.runs import check_rate, seeds_matter, with_rate, with_replicas
from llmsim.sweep.parallel import workers

TTFT = Criterion.parse(["p90_ttft<=1s"])


def runs(*schedulers: str, **workload: object) -> list[RunSpec]:
    """Sarathi (or others) on 40 requests with ShareGPT's lengths."""
    arrivals = {"kind": "poisson", "rate": 8.0}
    return load_runs(
        mapping={
            "calibration": "rtx-6000-ada/mistral-7b",
            "workload": {"trace": "sharegpt4", "num_requests": 40, "arrivals": arrivals} | workload,
            "schedulers": list(schedulers or ("sarathi",)),
        }
    )


def passes(spec: RunSpec, criterion: Criterion = TTFT) -> bool:
    return criterion.of(simulate(spec)).passed


def test_the_rate_found_keeps_the_criterion_and_the_next_one_does_not():
    (spec,) = runs()
    report = find_capacity([spec], Plan(criterion=TTFT, seeds=(0, 1), precision=0.05))
    (sarathi,) = report.schedulers
    for seed in sarathi.seeds:
        bracket = seed.found.bracket
        assert bracket.keeps is not None
        assert bracket.fails is not None
        assert passes(with_rate(spec.replace(seed=seed.seed), bracket.keeps))
        assert not passes(with_rate(spec.replace(seed=seed.seed), bracket.fails))
        assert seed.inversions == 0
        assert len(seed.found.probes) == len({probe.at for probe in seed.found.probes})


def test_the_fewest_replicas_agree_with_trying_all_and_pass_with_every_seed():
    (spec,) = runs()
    report = find_capacity([spec], Plan(criterion=TTFT, find="replicas", seeds=(0, 1, 2), max_replicas=12))
    (sarathi,) = report.schedulers

    def brute(*seeds: int) -> int:
        return next(n for n in range(1, 13) if all(passes(with_replicas(spec.replace(seed=s), n)) for s in seeds))

    assert [seed.value for seed in sarathi.seeds] == [brute(seed) for seed in (0, 1, 2)]
    assert sarathi.together == brute(0, 1, 2) > 1
    assert all(seed.found.at(sarathi.together) is not None for seed in sarathi.seeds)


def test_a_seed_gives_the_same_requests_at_every_rate_and_to_every_scheduler():
    one, other = runs("sarathi", "orca")
    slow, fast = (simulate(with_rate(one, rate)).requests for rate in (1.0, 4.0))
    lengths = ["prompt_tokens", "output_tokens"]
    assert slow[lengths].equals(fast[lengths])
    np.testing.assert_allclose(slow["arrival_ns"], 4 * fast["arrival_ns"], atol=4)
    columns = ["arrival_ns", *lengths]
    assert simulate(with_rate(other, 4.0)).requests[columns].equals(fast[columns])


def test_schedulers_are_compared_seed_by_seed():
    plan = Plan(criterion=TTFT, seeds=(0, 1, 2), precision=0.05, check=False)
    report = find_capacity(runs("sarathi", "sarathi", "vllm_v0"), plan)
    first, same, v0 = report.schedulers
    ratio = same.ratio_to(first)
    assert ratio is not None
    assert (ratio.mean, ratio.low, ratio.high) == (1, 1, 1)
    assert first.capacity is not None
    assert first.capacity.high is not None
    assert first.capacity.high > first.capacity.mean  # the seeds differ, the ratios do not
    assert v0.ratio_to(first) is not None
    assert "ratio to first" in report.text()


def test_the_report_has_the_same_bytes_again_and_with_processes():
    plan = Plan(criterion=TTFT, seeds=(0, 1), precision=0.1)
    alone = to_json(find_capacity(runs(), plan).as_dict())
    assert to_json(find_capacity(runs(), plan).as_dict()) == alone
    with workers(2) as executor:
        assert to_json(find_capacity(runs(), plan, executor=executor).as_dict()) == alone


def test_what_lies_outside_the_rates_probed_is_said_and_not_averaged():
    (spec,) = runs()
    never = find_capacity([spec], Plan(criterion=Criterion.parse(["p90_ttft<=1ms"]), seeds=(0, 1), start=1.0))
    assert [seed.value for seed in never.schedulers[0].seeds] == [0, 0]
    assert never.schedulers[0].capacity is not None
    assert never.schedulers[0].capacity.low is None
    assert "none down to 0.0009766 requests/s" in never.text()
    anything = Criterion.parse(["p90_ttft<=9999s"], allow_overload=True)
    always = find_capacity([spec], Plan(criterion=anything, seeds=(0,), start=1.0))
    assert always.schedulers[0].capacity is None
    assert ">= 1024" in always.text()
    few = find_capacity([spec], Plan(criterion=TTFT, find="replicas", seeds=(0,), max_replicas=1))
    assert few.schedulers[0].together is None
    assert "none up to 1 keeps" in few.text()


def test_a_bound_is_printed_and_sets_the_start():
    plan = Plan(criterion=TTFT, seeds=(0,), bound_rps=6.0, precision=0.1)
    report = find_capacity(runs(), plan)
    assert report.schedulers[0].seeds[0].found.probes[0].at == 3.0
    text = " ".join(report.text().split())
    assert "Fluid bound: no scheduler carries more than 6 requests/s; of it carry sarathi" in text
    assert "too short" not in text


def test_requests_left_at_a_horizon_are_counted_beside_the_percentiles():
    spec = runs()[0].replace(horizon_s=15.0)
    criterion = Criterion.parse(["p90_ttft<=1s"], allow_overload=True)
    report = find_capacity([spec], Plan(criterion=criterion, seeds=(0,), precision=0.1))
    assert report.schedulers[0].unfinished > 0
    assert "unfinished (censored)" in report.text()


def test_a_trace_of_lengths_gets_poisson_arrivals_and_one_with_times_keeps_its_own(tmp_path):
    lengths = check_rate(runs(arrivals={"kind": "trace"})[0])
    assert lengths.workload.arrivals.kind == "poisson"
    path = tmp_path / "times.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n1,6,5\n5,7,5\n")
    (own,) = runs(trace=str(path), num_requests=3, arrivals={"kind": "trace"}, time_scale=2.0)
    stretched = simulate(with_rate(check_rate(own), 6.0)).requests["arrival_ns"]
    assert stretched.tolist() == [0, 100_000_000, 500_000_000]
    assert not seeds_matter(own)
    report = find_capacity([own], Plan(criterion=Criterion.parse(["p90_ttft<=9s"], allow_overload=True)))
    assert len(report.schedulers[0].seeds) == 1


@pytest.mark.parametrize(
    ("change", "find", "said"),
    [
        ({"workload": {"arrivals": {"kind": "closed_loop", "max_concurrency": 4}}}, "rate", "has no rate to search"),
        ({"cluster": {"groups": [{"replicas": 1}, {"replicas": 1}]}}, "replicas", r"cluster\.groups"),
    ],
)
def test_a_run_that_has_nothing_to_search_is_refused(change, find, said):
    mapping = {"calibration": "rtx-6000-ada/mistral-7b", "workload": {"trace": "sharegpt4", "num_requests": 5}}
    for key, value in change.items():
        mapping[key] = {**mapping.get(key, {}), **value}
    with pytest.raises(ConfigError, match=said):
        find_capacity(load_runs(mapping=mapping), Plan(criterion=TTFT, find=find))


def test_a_plan_that_cannot_be_followed_says_what_to_change():
    for change in ({"rule": "osd"}, {"find": "gpus"}, {"seeds": ()}, {"max_replicas": 0}, {"bound_rps": 0.0}):
        with pytest.raises(ConfigError, match="must be"):
            replace(Plan(criterion=TTFT), **change)
    with pytest.raises(ConfigError, match="searches for a rate"):
        Plan(criterion=TTFT, rule="osdi", find="replicas")
    with pytest.raises(ConfigError, match="at least one"):
        find_capacity([], Plan(criterion=TTFT))
    with pytest.raises(ConfigError, match="whole number of replicas"):
        find_capacity(runs(), Plan(criterion=TTFT, find="replicas", start=1.5))


def test_without_a_bound_of_ones_own_it_is_the_fluid_bound_and_nobody_beats_it():
    (spec,) = runs()
    report = find_capacity([spec], Plan(criterion=TTFT, seeds=(0,), precision=0.1))
    bound = fluid_bound_rps(spec)
    assert report.plan.bound_rps == bound
    assert report.as_dict()["bound_rps"] == bound
    # A run of 40 requests ends before it is saturated, so its rate may pass the bound; its throughput may not.
    saturated = simulate(with_rate(spec, float("inf")))
    assert saturated.summary["request_throughput"] < bound


def test_a_capacity_above_the_bound_is_said_to_be_of_too_short_a_run():
    plan = Plan(criterion=Criterion.parse(["p90_ttft<=4s"]), seeds=(0,), precision=0.1)
    assert "too short" in " ".join(find_capacity(runs(), plan).text().split())


def test_a_cluster_of_groups_has_at_least_the_bound_of_its_parts():
    (spec,) = runs()
    one = fluid_bound_rps(spec)
    groups = (GroupSpec(replicas=2), GroupSpec(replicas=1, calibration="a100/llama-3-8b", model="mistral-7b"))
    other = fluid_bound_rps(spec.replace(calibration="a100/llama-3-8b"))
    mixed = fluid_bound_rps(spec.replace(cluster=ClusterSpec(groups=groups)))
    assert 1 - 1e-6 <= mixed / (2 * one + other) < 1.5  # a router may send each kind what suits it
