"""A Llama-like decoder with random weights: real shapes and real work, meaningless text.

RMSNorm, rotary positions, grouped-query attention, SwiGLU and an LM head, as Llama, Mistral, Qwen2 and Qwen3 publish
them. Weights are normal with deviation 0.02, as such models are initialised: products of zeros would run faster than
real ones on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from llmsim.costs.models import ModelConfig
    from llmsim.executors.attention.base import AttentionBackend

WEIGHT_STD = 0.02

POSITIONS_OVER = 4
"""Rotary positions are made for so many times the model's length: engines let an output run past it."""


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on x (T, heads, head_dim), dimension i of a head paired with i + head_dim / 2.

    cos and sin are (T, 1, head_dim), the first half of sin negated: three kernels, where launches are what a small
    batch on a GPU is made of.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class Layer(nn.Module):
    """Attention and MLP of one layer, each behind an RMSNorm and with a residual."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        rows = (config.heads + 2 * config.kv_heads) * config.head_dim
        self.input_norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.qkv = nn.Linear(config.hidden, rows, bias=config.attention_bias)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.output = nn.Linear(config.heads * config.head_dim, config.hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.gate_up = nn.Linear(config.hidden, 2 * config.mlp, bias=False)
        self.down = nn.Linear(config.mlp, config.hidden, bias=False)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attention: AttentionBackend
    ) -> torch.Tensor:
        """Hidden states x (T, hidden) after this layer."""
        tokens = x.shape[0]
        qkv = self.qkv(self.input_norm(x)).view(tokens, -1, self.head_dim)
        qk, v = qkv[:, : -self.kv_heads], qkv[:, -self.kv_heads :]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat((self.q_norm(qk[:, : self.heads]), self.k_norm(qk[:, self.heads :])), dim=1)
        rotated = rotate(qk, cos, sin)
        q, k = rotated[:, : self.heads], rotated[:, self.heads :]
        attended = attention.run(self.index, q, k, v)
        x = x + self.output(attended.reshape(tokens, -1))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        down: torch.Tensor = self.down(functional.silu(gate) * up)
        return x + down


class Decoder(nn.Module):
    """The whole model, in `dtype` on `device`; `seed` makes the weights."""

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # no memory is touched until the weights are made where they belong
            self.embedding = nn.Embedding(config.vocabulary, config.hidden)
            self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
            self.norm = nn.RMSNorm(config.hidden, config.norm_eps)
            self.head = nn.Linear(config.hidden, config.vocabulary, bias=False)
        self.to(dtype)
        self.to_empty(device=device)
        self._randomise(seed)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.requires_grad_(requires_grad=False)
        angles = torch.outer(torch.arange(POSITIONS_OVER * config.max_model_len), self._frequencies())
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=-1).to(dtype).to(device)
        self.sin = torch.cat((-sin, sin), dim=-1).to(dtype).to(device)

    def _randomise(self, seed: int) -> None:
        generator = torch.Generator(self.embedding.weight.device).manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
            elif isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=WEIGHT_STD, generator=generator)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.normal_(module.bias, std=WEIGHT_STD, generator=generator)

    def _frequencies(self) -> torch.Tensor:
        """Rotary frequencies, (head_dim / 2,), float64. Scaled variants differ in values alone, not in work."""
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float64) / self.config.head_dim
        return self.config.rope_theta**-half

    def forward(
        self, token_ids: torch.Tensor, positions: torch.Tensor, last: torch.Tensor, attention: AttentionBackend
    ) -> torch.Tensor:
        """Logits (B, vocabulary) of the last token of each row.

        token_ids and positions (T,), last (B,) the index of each row's last token among T; `attention` is planned.
        """
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        x = self.embedding(token_ids)
        for layer in self.layers:
            x = layer(x, cos, sin, attention)
        logits: torch.Tensor = self.head(self.norm(x[last]))
        return logits


def sample(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    """Token ids (B,) from logits (B, vocabulary): the likeliest at temperature 0, else drawn."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(weights, 1, generator=generator).squeeze(-1)
