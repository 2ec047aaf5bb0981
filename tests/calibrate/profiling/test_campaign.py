"""Measuring for real on a CPU with a very small model: resumable, unmixed, and a calibration at its end."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from llmsim.calibrate.fitting.calibrate import calibrate_campaign, device_slug
from llmsim.calibrate.fitting.features import load_measurements
from llmsim.calibrate.profiling.campaign import Campaign, run_campaign
from llmsim.calibrate.profiling.cases import parse_case
from llmsim.calibrate.profiling.measure import Bench, Samples
from llmsim.costs.calibration import load_calibration, save
from llmsim.errors import CalibrationError, CapacityError, ConfigError
from llmsim.executors.device import DeviceSpec, StepResult

pytestmark = pytest.mark.live

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 256,
}  # fmt: skip


@pytest.fixture
def campaign(tmp_path):
    shape = tmp_path / "small.json"
    shape.write_text(json.dumps(SHAPE))
    return Campaign(
        model=str(shape), out=tmp_path / "out", minutes=5, repeats=3, max_tokens=64, max_seqs=16, kv_bytes=4 * 2**20
    )


def test_a_campaign_ends_in_a_calibration(campaign, tmp_path):
    folder = run_campaign(campaign)
    table = load_measurements(folder / "measurements.csv")
    assert set(table.groupby("case").size()) == {3}
    assert (table["step_seconds"] >= table["seconds"]).all()
    fitted = calibrate_campaign(folder, "here")
    save(fitted.calibration, tmp_path / "made.json")
    made = load_calibration(tmp_path / "made.json")
    assert made == fitted.calibration
    assert made.name == "here/small"
    assert made.executor.model.endswith("small.json")
    assert 0 < made.host_overhead_s < 0.1
    assert made.kv.num_blocks * made.kv.block_bytes <= 4 * 2**20
    held = json.loads((folder / "manifest.json").read_text())
    assert held["identity"]["executor"]["backend"] == "sdpa"
    assert held["samples"]["repeats_of_every_case"] == 3
    assert held["measured_ceilings"]["flops"] > 1e8


class PowerCut(Exception):
    """The machine stops."""


def test_an_interrupted_campaign_goes_on_and_loses_nothing(campaign, monkeypatch):
    real, runs = Bench.run, []

    def run(self, case):
        runs.append(str(case))
        if len(runs) == 400:
            raise PowerCut
        return real(self, case)

    monkeypatch.setattr(Bench, "run", run)
    with pytest.raises(PowerCut):
        run_campaign(campaign)
    path = campaign.out / "measurements.csv"
    kept = path.read_text()
    with pytest.raises(CalibrationError, match="not finished"):
        calibrate_campaign(campaign.out)
    path.write_text(kept + "decode-001=1@")  # cut off in the middle of a line
    run_campaign(campaign)
    assert path.read_text().startswith(kept)
    whole = load_measurements(path)
    assert set(whole.groupby("case").size()) == {3}
    assert not whole.duplicated(["case", "repeat"]).any()


def test_measurements_of_another_kind_are_not_mixed_in(campaign):
    run_campaign(campaign)
    other = Campaign(model=campaign.model, out=campaign.out, spec=DeviceSpec(dtype="bfloat16"), kv_bytes=4 * 2**20)
    with pytest.raises(CalibrationError, match=r"executor\.dtype = 'float32'.*'bfloat16'.*--restart"):
        run_campaign(other)


def test_a_budget_too_small_is_said(campaign):
    hasty = Campaign(model=campaign.model, out=campaign.out, minutes=0.0001, kv_bytes=4 * 2**20)
    with pytest.raises(ConfigError, match="Give more --minutes"):
        run_campaign(hasty)
    assert not (campaign.out / "manifest.json").exists()


def test_what_does_not_fit_is_refused(campaign):
    with pytest.raises(CapacityError, match="raise --kv-gib"):
        run_campaign(Campaign(model=campaign.model, out=campaign.out, kv_bytes=10))
    with pytest.raises(CapacityError, match="lower --kv-gib"):
        run_campaign(Campaign(model="llama-3-8b", out=campaign.out, kv_bytes=2**50))


def test_cases_run_as_they_are_written(campaign):
    seen = []

    class Runner:
        config = type("Config", (), {"vocabulary": 61})
        spec = DeviceSpec(page_size=16)
        num_pages = 64

        def fill_kv(self):
            seen.append("filled")

        def step(self, rows):
            seen.append(rows)
            return StepResult([0] * len(rows), 1, 1)

    bench = Bench(Runner(), seed=1)
    rows = bench.rows(parse_case("mix=20@50c,2*1@33,7"))
    assert [(row.start, len(row.tokens)) for row in rows] == [(32, 1), (32, 1), (30, 20), (0, 7)]
    pages = np.concatenate([row.pages for row in rows])
    assert len(set(pages.tolist())) == len(pages) == 3 + 3 + 4 + 1
    with pytest.raises(CalibrationError, match="needs 126 KV pages"):
        bench.rows(parse_case("big=2*1@1000"))


def test_a_file_that_is_no_measurements_is_left_alone(tmp_path):
    path = tmp_path / "measurements.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(CalibrationError, match="columns must be"):
        Samples(path)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD EPYC", "amd-epyc"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon"),
    ],
)
def test_devices_have_short_names(name, slug):
    assert device_slug(name) == slug
