"""A live run replayed on its recorded times makes the same decisions: the same scheduler objects, on any machine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from llmsim.errors import ConfigError, StalledError
from llmsim.executors.device import DeviceSpec
from llmsim.executors.live import SCRATCH_PAGES
from llmsim.spec import registry
from llmsim.spec.run_spec import ClusterSpec, EngineSpec, RunSpec
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.distributions import DistributionSpec
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.spec import WorkloadSpec
from llmsim.validation.live import replay, serve_live
from llmsim.validation.record import LiveRun
from tests.engine.build import POLICIES
from tests.executors.runners import FakeRunner
from tests.executors.shapes import SMALL

BLOCKS = 90


def spec(scheduler="sarathi", *, semantics=True, rate=4000.0, count=30):
    lengths = LengthsSpec(
        kind="synthetic",
        prompt=DistributionSpec(kind="lognormal", mean=40, std=40, low=1, high=160),
        output=DistributionSpec(kind="lognormal", mean=12, std=10, low=1, high=60),
    )
    return RunSpec(
        workload=WorkloadSpec(
            lengths=lengths, arrivals=ArrivalsSpec(kind="poisson", rate=rate), num_requests=count
        ),
        calibration="rtx-6000-ada/mistral-7b",
        scheduler=scheduler,
        engine=EngineSpec(
            num_blocks=BLOCKS,
            block_size=4,
            max_model_len=256,
            first_token_at_prefill_end=semantics,
            preempted_request_regenerates_output=not semantics,
        ),
    )


def check(run, runner, scheduler):
    live = serve_live(run, runner, scheduler=scheduler)
    assert (live.result.requests["status"] == "finished").all()
    result, composition = replay(run, live.result.iterations, scheduler=scheduler)
    assert composition.equals(live.composition)
    assert result.requests.equals(live.result.requests)
    assert result.iterations.equals(live.result.iterations)
    return live


@pytest.mark.parametrize("semantics", [True, False], ids=["vllm", "slai"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_replay_is_identical(policy, semantics):
    check(spec(semantics=semantics), FakeRunner(BLOCKS, page_size=4), POLICIES[policy]())


@pytest.mark.live
@pytest.mark.parametrize("name", registry.names("scheduler"))
def test_a_replay_of_the_real_executor_is_identical(name):
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    from llmsim.executors.runner import ModelRunner

    runner = ModelRunner(SMALL, DeviceSpec(page_size=4), BLOCKS + SCRATCH_PAGES)
    live = check(spec(name), runner, name)
    assert (live.timings["forward_ns"] > 0).all()


def test_a_replay_of_other_decisions_is_noticed():
    run = spec(rate=1e5)
    live = serve_live(run, FakeRunner(BLOCKS, page_size=4))
    with pytest.raises(StalledError, match="differ from the recorded"):
        replay(run.replace(scheduler="vllm_v0,max_num_seqs=2"), live.result.iterations)


def test_the_composition_says_who_was_in_each_batch():
    live = serve_live(spec(), FakeRunner(BLOCKS, page_size=4))
    table, iterations = live.composition, live.result.iterations
    prefills = table[table["phase"] == "prefill"]
    decodes = table[table["phase"] == "decode"]
    by = lambda rows, column: rows.groupby("iteration")[column].sum().reindex(iterations["iteration"], fill_value=0)  # noqa: E731
    assert np.array_equal(by(prefills, "tokens"), iterations["prefill_tokens"])
    assert np.array_equal(by(prefills, "context"), iterations["prefill_context"])
    assert np.array_equal(by(decodes, "tokens"), iterations["decode_tokens"])
    assert np.array_equal(by(decodes, "context"), iterations["decode_context"])


def test_a_live_run_is_saved_whole(tmp_path):
    live = serve_live(spec(), FakeRunner(BLOCKS, page_size=4))
    folder = live.save(tmp_path)
    again = LiveRun.load(folder)
    assert again.timings.equals(live.timings)
    assert again.composition.equals(live.composition)
    assert again.result.requests.equals(live.result.requests)
    (folder / "timings.parquet").unlink()
    with pytest.raises(ConfigError, match=r"no timings\.parquet"):
        LiveRun.load(folder)


def test_a_run_that_does_not_fit_the_device_is_refused():
    with pytest.raises(ConfigError, match=r"lower engine\.num_blocks to 80"):
        serve_live(spec(), FakeRunner(80, page_size=4))
    with pytest.raises(ConfigError, match="calibration's block size"):
        serve_live(spec(), FakeRunner(BLOCKS, page_size=16))
    with pytest.raises(ConfigError, match="one replica"):
        serve_live(spec().replace(cluster=ClusterSpec(replicas=2)), FakeRunner(BLOCKS, page_size=4))
