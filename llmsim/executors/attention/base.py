"""AttentionBackend: paged attention of one model's layers; what the decoder calls, whoever computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from llmsim.costs.models import ModelConfig
    from llmsim.executors.step import Step


class AttentionBackend(ABC):
    """Keys and values of every layer in pages, and attention over them.

    `kv` holds one tensor a layer, [pages, 2, page_size, kv_heads, head_dim]: FlashInfer's "NHD", 0 keys and 1 values.
    """

    name: str
    kv: list[torch.Tensor]

    def __init__(
        self, config: ModelConfig, *, num_pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        import torch

        self.config = config
        self.page_size = page_size
        self.dtype = dtype
        self.device = device
        shape = (num_pages, 2, page_size, config.kv_heads, config.head_dim)
        self.kv = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]

    @abstractmethod
    def plan(self, step: Step) -> None:
        """Get ready for the layers of one iteration: copy index arrays to the device, once."""

    @abstractmethod
    def run(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Write k and v (T, kv_heads, head_dim) into the pages of the planned step, then attend with q.

        q is (T, heads, head_dim), rotated already, as k is; so is the result. The three may be slices of a wider
        tensor. Scale 1 / sqrt(head_dim), causal: a query at position p of its row sees the keys 0..p.
        """
