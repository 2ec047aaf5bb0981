"""Where and how a model runs, and what a step of it gives back. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llmsim.errors import ConfigError

VALUE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Number formats of weights and KV, and their bytes."""

BACKENDS = ("sdpa", "flashinfer", "flashinfer-batch")


class StepResult(NamedTuple):
    """Sampled tokens (B,) and nanoseconds.

    `forward_ns` from the packed step to the sampled tokens, on a GPU by CUDA events on the stream; `whole_ns` with
    packing before and the tokens' way to the host after it.
    """

    tokens: list[int]
    forward_ns: int
    whole_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """Where and how a model runs: what a calibration is valid for, and what a manifest records.

    `threads` are torch's on a CPU: one, as two on a shared machine of two cores were several times slower and wildly
    noisy. `temperature` 0 takes the likeliest token.
    """

    device: str = "cpu"
    backend: str = "sdpa"
    dtype: str = "float32"
    page_size: int = 16
    threads: int = 1
    seed: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.dtype not in VALUE_BYTES:
            raise ConfigError(f"dtype must be one of {', '.join(VALUE_BYTES)} but got {self.dtype!r}")
        if self.backend not in BACKENDS:
            raise ConfigError(f"backend must be one of {', '.join(BACKENDS)} but got {self.backend!r}")
        if self.page_size < 1 or self.threads < 1:
            raise ConfigError(f"page_size and threads must be at least 1 but got {self.page_size} and {self.threads}")
        if not 0 <= self.temperature < 100:
            raise ConfigError(f"temperature must be 0 or a small positive number but got {self.temperature}")
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise ConfigError(f"device must be cpu, cuda or cuda:N but got {self.device!r}")

    @property
    def value_bytes(self) -> int:
        """Bytes of one number of weights and KV."""
        return VALUE_BYTES[self.dtype]
