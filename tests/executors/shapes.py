"""Model shapes for tests."""

from __future__ import annotations

from llmsim.costs.models import ModelConfig

SMALL = ModelConfig(
    name="small", family="llama", hidden=48, mlp=80, layers=2, heads=4, kv_heads=2, head_dim=12, vocabulary=97,
    max_model_len=4096, norm_eps=1e-5, rope_theta=1e4,
)  # fmt: skip
