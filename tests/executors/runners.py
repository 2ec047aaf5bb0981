"""A stand-in for ModelRunner without torch: checks every step it is given, and takes a little real time."""

from __future__ import annotations

import time
from types import SimpleNamespace

from llmsim.executors.device import StepResult
from llmsim.executors.live import SCRATCH_PAGES
from llmsim.executors.step import Step
from tests.executors.shapes import SMALL


class FakeRunner:
    """Samples token 7 after `seconds` of real time. No two tokens of a step may go to the same slot of the KV cache."""

    def __init__(self, num_blocks, page_size=16, seconds=0.0):
        self.num_blocks = num_blocks
        self.num_pages = num_blocks + SCRATCH_PAGES
        self.config = SMALL
        self.max_positions = 4 * SMALL.max_model_len
        self.spec = SimpleNamespace(page_size=page_size, device="cpu", backend="fake", dtype="float32")
        self.seconds = seconds
        self.steps = []

    def step(self, rows):
        began = time.perf_counter_ns()
        packed = Step.pack(rows, self.spec.page_size)
        kept = packed.slots[packed.slots < self.num_blocks * self.spec.page_size].tolist()
        assert len(set(kept)) == len(kept), "two tokens of a step go to the same slot"
        assert packed.pages.max() < self.num_pages
        self.steps.append(rows)
        while time.perf_counter_ns() - began < self.seconds * 1e9:
            pass
        spent = time.perf_counter_ns() - began
        return StepResult([7] * len(rows), spent, spent)
