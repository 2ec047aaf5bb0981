"""Paged attention with FlashInfer on a CUDA device: two calls a layer, or one launch for the whole batch.

The calls are those of flashinfer-python 0.6.18.post1 and 0.7.2.post1, whose arguments here are the same, with the fa2
kernels (fa3 takes several times as long to compile). The first plan and the first run compile them: minutes.
FlashInfer plans on the host: `plan` wants index arrays there, pinned, else it waits for the device.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmsim.errors import ConfigError
from llmsim.executors.attention.base import AttentionBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from llmsim.costs.models import ModelConfig
    from llmsim.executors.step import Step

LAYOUT = "NHD"
WORKSPACE_BYTES = 256 * 2**20
"""For partial results where keys are split over thread blocks; 32 heads on 132 multiprocessors take 70 MiB."""
DTYPES = (torch.float16, torch.bfloat16)
HEAD_DIMS = (64, 128, 256)


def check_machine(name: str, device: torch.device) -> None:
    """Raise ConfigError unless flashinfer is installed and `device` is a GPU that it has kernels for."""
    if device.type != "cuda":
        raise ConfigError(f"attention backend {name} runs on CUDA devices only but got device {device}; use sdpa there")
    if not torch.cuda.is_available():
        raise ConfigError(f"attention backend {name} needs a CUDA device, but torch finds none; use sdpa on a CPU")
    if importlib.util.find_spec("flashinfer") is None:
        raise ConfigError(
            f"attention backend {name} needs the package flashinfer, which is not installed: pip install "
            "flashinfer-python (it compiles its kernels with nvcc and ninja), or use the backend sdpa"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise ConfigError(
            f"attention backend {name} needs compute capability 8.0 (Ampere) or newer but {device} has "
            f"{capability[0]}.{capability[1]}; use the backend sdpa"
        )


def check_shape(name: str, config: ModelConfig, dtype: torch.dtype) -> None:
    """Raise ConfigError for a dtype or head size without an fa2 kernel."""
    if dtype not in DTYPES:
        raise ConfigError(
            f"attention backend {name} computes in float16 or bfloat16 but got {str(dtype).removeprefix('torch.')}; "
            "choose one of those, or the backend sdpa"
        )
    if config.head_dim not in HEAD_DIMS:
        raise ConfigError(
            f"attention backend {name} has kernels for heads of {', '.join(map(str, HEAD_DIMS))} but {config.name} has "
            f"heads of {config.head_dim}; use the backend sdpa"
        )


class FlashInferBackend(AttentionBackend):
    """Two calls a layer, as in vLLM's FlashInfer backend: the leading decodes, and all other rows.

    Both run the same prefill kernel on tensor cores, so their times add up. Planning a step rewrites buffers of the
    one before, which must have left the device by then: whoever reads its tokens has waited for that.
    Raises ConfigError where flashinfer, the device, the dtype or the head size does not go.
    """

    name = "flashinfer"

    def __init__(
        self, config: ModelConfig, *, num_pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        check_machine(self.name, device)
        check_shape(self.name, config, dtype)
        super().__init__(config, num_pages=num_pages, page_size=page_size, dtype=dtype, device=device)
        self._flashinfer: Any = importlib.import_module("flashinfer")  # takes seconds, so not before it is wanted
        self._heads = (config.heads, config.kv_heads, config.head_dim)
        self._dtypes = {"q_data_type": dtype, "kv_data_type": dtype}

    @cached_property
    def _workspace(self) -> torch.Tensor:
        """Shared by both wrappers, as they run one after the other; zero at first, as FlashInfer asks."""
        return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=self.device)

    @cached_property
    def _decode(self) -> Any:
        wrapper = self._flashinfer.BatchDecodeWithPagedKVCacheWrapper
        return wrapper(self._workspace, LAYOUT, use_tensor_cores=True, backend="fa2")

    @cached_property
    def _prefill(self) -> Any:
        return self._flashinfer.BatchPrefillWithPagedKVCacheWrapper(self._workspace, LAYOUT, backend="fa2")

    def plan(self, step: Step) -> None:
        """Index arrays to the device, then FlashInfer's plan of each call. A step with hidden keys gets a mask."""
        decodes = self._decodes = step.decodes
        first = int(step.page_starts[decodes])
        host, device = self._stage(
            step,
            rest_query_starts=step.query_starts[decodes:] - decodes,
            rest_page_starts=step.page_starts[decodes:] - first,
        )
        if decodes:
            self._decode.plan(
                host["page_starts"][: decodes + 1],
                device["pages"][:first],
                host["last_page_len"][:decodes],
                *self._heads,
                self.page_size,
                **self._dtypes,
            )
        if decodes < step.rows:
            mask = self._mask(step)
            self._prefill.plan(
                host["rest_query_starts"],
                host["rest_page_starts"],
                device["pages"][first:],
                host["last_page_len"][decodes:],
                *self._heads,
                self.page_size,
                custom_mask=mask,
                causal=mask is None,  # aligned bottom right: the last query sees the last key
                **self._dtypes,
            )

    def run(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As in AttentionBackend."""
        self._append(layer, k, v)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if self._decodes:
            self._decode.run(q[: self._decodes], self.kv[layer], out=out[: self._decodes])
        if self._decodes < len(q):
            self._prefill.run(q[self._decodes :], self.kv[layer], out=out[self._decodes :])
        return out

    def _stage(
        self, step: Step, **more: NDArray[np.int32]
    ) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Index arrays by name, int32, on the host (pinned) and on the device; keeps what appending keys needs."""
        arrays: dict[str, NDArray[np.integer[Any]]] = {
            "row_of": np.repeat(np.arange(step.rows), np.diff(step.query_starts)),
            "positions": step.positions,
            "pages": step.pages,
            "page_starts": step.page_starts,
            "last_page_len": step.last_page_len,
            **more,
        }
        sizes = [len(array) for array in arrays.values()]
        packed = self._pinned(torch.from_numpy(np.concatenate(list(arrays.values())).astype(np.int32)))
        host = dict(zip(arrays, torch.split_with_sizes(packed, sizes), strict=True))
        device = dict(zip(arrays, torch.split_with_sizes(to_device(packed, self.device), sizes), strict=True))
        self._appended = tuple(device[name] for name in ("row_of", "positions"))
        self._tables = tuple(device[name] for name in ("pages", "page_starts", "last_page_len"))
        return host, device

    def _append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keys and values of the step's tokens into their pages. v may be a slice of a wider tensor."""
        self._flashinfer.append_paged_kv_cache(k, v, *self._appended, self.kv[layer], *self._tables, kv_layout=LAYOUT)

    def _mask(self, step: Step) -> torch.Tensor | None:
        """What each query of the rows behind the decodes sees, row after row, flat; None if no key is hidden."""
        if not step.hidden.any():
            return None
        queries = np.diff(step.query_starts)
        seen = []
        for row in range(step.decodes, step.rows):
            keys, count = int(step.keys[row]), int(queries[row])
            last_seen = keys - int(step.hidden[row]) - count + np.arange(count)
            seen.append((np.arange(keys) <= last_seen[:, None]).ravel())
        return to_device(self._pinned(torch.from_numpy(np.concatenate(seen))), self.device)

    def _pinned(self, held: torch.Tensor) -> torch.Tensor:
        """In memory that a GPU copies from on its own; as it is where there is none."""
        return held.pin_memory() if self.device.type == "cuda" else held


class FlashInferBatchAttention(FlashInferBackend):
    """One persistent launch a layer for decodes and prompts together.

    Its plan waits for the device, and it has no mask: a step with hidden keys takes the two calls instead.
    """

    name = "flashinfer-batch"

    @cached_property
    def _batch(self) -> Any:
        return self._flashinfer.BatchAttention(LAYOUT, device=str(self.device))

    def plan(self, step: Step) -> None:
        """As in FlashInferBackend, but one plan for all rows."""
        self._whole = not step.hidden.any()
        if not self._whole:
            super().plan(step)
            return
        host, device = self._stage(step, query_starts=step.query_starts, keys=step.keys)
        heads, kv_heads, head_dim = self._heads
        self._batch.plan(
            host["query_starts"],
            host["page_starts"],
            device["pages"],  # kept as it is until run, so it must be on the device
            host["keys"],
            heads,
            kv_heads,
            head_dim,
            head_dim,
            self.page_size,
            causal=True,
            **self._dtypes,
        )

    def run(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As in AttentionBackend."""
        if not self._whole:
            return super().run(layer, q, k, v)
        self._append(layer, k, v)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        self._batch.run(q, self.kv[layer], out=out)
        return out


def to_device(held: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on the device that does not wait for it; `held` is pinned if that is a GPU."""
    return held.to(device, non_blocking=True)
