"""Estimates of what kernel tables leave out: norms, rotary positions, activation, KV write, embedding, sampler.

Each kernel takes FLOOR_S or the time to move its bytes, whichever is more: at the card's bandwidth, or at twice that if
they fit its L2 cache. The floor and the sampler's times are those of the layer profiles of two cards (RTX PRO 6000 and
RTX 4090, vLLM 0.19), which agree on them within 0.5 us; against these profiles the rule is at most a third too slow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmsim.calibrate.importers.gpus import Gpu
from llmsim.costs.models import ModelConfig

FLOOR_S = 2.5e-6
SAMPLER_S = 25e-6
SAMPLER_PER_SEQUENCE_S = 0.5e-6
VALUE_BYTES = 2

Floats = NDArray[np.float64]


def layer_seconds(model: ModelConfig, gpu: Gpu, tokens: Floats, tensor_parallel: int) -> Floats:
    """Seconds of one layer's small kernels by tokens: norms with residual, rotary positions, activation, KV write."""
    heads, kv_heads = model.heads // tensor_parallel, model.kv_heads // tensor_parallel
    mlp = model.mlp // tensor_parallel
    values = [
        4 * model.hidden,  # norm: reads input and residual, writes both
        4 * model.hidden,
        2 * (heads + kv_heads) * model.head_dim,  # rotary: queries and keys in place
        3 * mlp,  # gate and up in, product out
        4 * kv_heads * model.head_dim,  # KV write
    ]
    if model.qk_norm:
        values.append(2 * (heads + kv_heads) * model.head_dim)
    return sum((_kernel(gpu, tokens * count * VALUE_BYTES) for count in values), start=np.zeros(len(tokens)))


def once_seconds(model: ModelConfig, gpu: Gpu, tokens: Floats) -> Floats:
    """Seconds of embedding and last norm by tokens."""
    return _kernel(gpu, tokens * 2 * model.hidden * VALUE_BYTES) + _kernel(gpu, tokens * 4 * model.hidden * VALUE_BYTES)


def sampler_seconds(sequences: Floats) -> Floats:
    """Seconds of sampling by sequences."""
    return SAMPLER_S + SAMPLER_PER_SEQUENCE_S * sequences


def _kernel(gpu: Gpu, size: Floats) -> Floats:
    rate = np.where(size <= gpu.l2_bytes, 2 * gpu.bandwidth, gpu.bandwidth)
    return np.maximum(FLOOR_S, size / rate)
