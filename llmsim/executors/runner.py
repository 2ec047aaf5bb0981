"""ModelRunner: model, attention backend and sampler of one device; runs a step and says how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from llmsim.errors import ConfigError
from llmsim.executors.decoder import Decoder, sample
from llmsim.executors.device import BACKENDS, DeviceSpec, StepResult
from llmsim.executors.packed_linear import can_pack, pack
from llmsim.executors.step import Int64, Row, Step
from llmsim.executors.warm_up import every_size, typical_sizes, warm_up

if TYPE_CHECKING:
    from llmsim.costs.models import ModelConfig
    from llmsim.executors.attention.base import AttentionBackend

KV_STD = 0.02


def backend_class(name: str) -> type[AttentionBackend]:
    """The attention backend called `name`; ConfigError if there is none."""
    if name == "sdpa":
        from llmsim.executors.attention.sdpa import SdpaBackend

        return SdpaBackend
    from llmsim.executors.attention import flashinfer

    known: dict[str, type[AttentionBackend]] = {
        "flashinfer": flashinfer.FlashInferBackend,
        "flashinfer-batch": flashinfer.FlashInferBatchAttention,
    }
    if name not in known:
        raise ConfigError(f"backend must be one of {', '.join(BACKENDS)} but got {name!r}")
    return known[name]


class ModelRunner:
    """One model on one device with `num_pages` pages of KV, ready to run steps.

    Raises ConfigError where the device or the backend is not there.
    """

    def __init__(self, config: ModelConfig, spec: DeviceSpec, num_pages: int) -> None:
        self.config = config
        self.spec = spec
        self.num_pages = num_pages
        self.device = torch.device(spec.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda was asked for, but torch finds no CUDA device; use --device cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(spec.threads)
        else:
            torch.cuda.set_device(self.device)  # events and libraries use the current one
        dtype: torch.dtype = getattr(torch, spec.dtype)
        self.model = Decoder(config, dtype=dtype, device=self.device, seed=spec.seed)
        self.linear = "packed by oneDNN" if can_pack(dtype, self.device) else "torch"
        """Who computes matrix products."""
        if can_pack(dtype, self.device):
            pack(self.model)
        self.attention = backend_class(spec.backend)(
            config, num_pages=num_pages, page_size=spec.page_size, dtype=dtype, device=self.device
        )
        self._generator = torch.Generator(self.device).manual_seed(spec.seed)

    def warm_up(self, max_tokens: int, max_rows: int) -> None:
        """Have the kernels of matrix products ready for batches of up to so many tokens and sequences."""
        sizes = every_size if self.device.type == "cpu" else typical_sizes
        dtype = self.model.embedding.weight.dtype
        warm_up(self.model.layers[0], sizes(max_tokens), dtype, self.device)
        warm_up(nn.Sequential(self.model.head), sizes(max_rows), dtype, self.device)

    @property
    def max_positions(self) -> int:
        """Tokens that a sequence may have here: rotary positions are there beyond what the model was trained for."""
        return len(self.model.cos)

    def fill_kv(self) -> None:
        """Random normal keys and values everywhere: for measuring batches whose past was never computed."""
        for layer in self.attention.kv:
            layer.normal_(std=KV_STD, generator=self._generator)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """Logits (B, vocabulary) after the last token of each row; writes the rows' KV."""
        return self._forward(Step.pack(rows, self.spec.page_size))

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> StepResult:
        """Run one iteration and sample a token for every row."""
        began = time.perf_counter_ns()
        packed = Step.pack(rows, self.spec.page_size)
        tokens, forward_ns = self._timed(lambda: sample(self._forward(packed), self.spec.temperature, self._generator))
        held: list[int] = tokens.tolist()
        return StepResult(held, forward_ns, time.perf_counter_ns() - began)

    def _forward(self, step: Step) -> torch.Tensor:
        self.attention.plan(step)
        token_ids, positions, last = map(self._to_device, (step.token_ids, step.positions, step.last))
        logits: torch.Tensor = self.model(token_ids, positions, last, self.attention)
        return logits

    def _to_device(self, array: Int64) -> torch.Tensor:
        """A copy on the device; through pinned memory, so that the host need not wait for a GPU."""
        held = torch.from_numpy(array)
        return held.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else held

    def _timed(self, work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
        """What `work` gives, and its nanoseconds on the device."""
        if self.device.type == "cpu":
            began = time.perf_counter_ns()
            out = work()
            return out, time.perf_counter_ns() - began
        first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch has no types there
        last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        first.record()
        out = work()
        last.record()
        last.synchronize()
        return out, round(first.elapsed_time(last) * 1e6)
