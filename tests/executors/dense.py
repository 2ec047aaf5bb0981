"""A plain dense decoder in float64: no pages, no batches, no chunks. What the real executor is held against.

Written from the models' papers with the weights of a Decoder and none of its code.
"""

from __future__ import annotations

import math

import torch

from llmsim.costs.models import ModelConfig


def dense(config: ModelConfig, weights: dict, tokens: list[int]):
    """Logits (L, vocabulary), and keys and values (layers, 2, L, kv_heads, head_dim), of a whole sequence."""
    w = {name: value.to(torch.float64) for name, value in weights.items()}
    length, d = len(tokens), config.head_dim
    x = w["embedding.weight"][torch.tensor(tokens)]
    held = []
    for layer in range(config.layers):
        at = f"layers.{layer}."
        h = rms(x, w[at + "input_norm.weight"], config.norm_eps)
        qkv = h @ w[at + "qkv.weight"].T + w.get(at + "qkv.bias", torch.zeros(()))
        q = qkv[:, : config.heads * d].reshape(length, config.heads, d)
        k = qkv[:, config.heads * d : (config.heads + config.kv_heads) * d].reshape(length, config.kv_heads, d)
        v = qkv[:, (config.heads + config.kv_heads) * d :].reshape(length, config.kv_heads, d)
        if config.qk_norm:
            q = rms(q, w[at + "q_norm.weight"], config.norm_eps)
            k = rms(k, w[at + "k_norm.weight"], config.norm_eps)
        q, k = turn(q, config.rope_theta), turn(k, config.rope_theta)
        held.append(torch.stack([k, v]))
        out = torch.zeros(length, config.heads, d, dtype=torch.float64)
        for head in range(config.heads):
            shared = head * config.kv_heads // config.heads
            for i in range(length):
                scores = k[: i + 1, shared] @ q[i, head] / math.sqrt(d)
                out[i, head] = torch.softmax(scores, 0) @ v[: i + 1, shared]
        x = x + out.reshape(length, -1) @ w[at + "output.weight"].T
        h = rms(x, w[at + "mlp_norm.weight"], config.norm_eps)
        gate, up = (h @ w[at + "gate_up.weight"].T).chunk(2, dim=-1)
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ w[at + "down.weight"].T
    return rms(x, w["norm.weight"], config.norm_eps) @ w["head.weight"].T, torch.stack(held)


def rms(x, weight, eps):
    """Root-mean-square norm over the last axis."""
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def turn(x, theta):
    """Rotary positions as products of complex numbers, the two halves of a head being the parts."""
    length, _, d = x.shape
    angle = torch.arange(length, dtype=torch.float64)[:, None] * theta ** (-torch.arange(0, d, 2).double() / d)
    turned = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * torch.exp(1j * angle)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def relative(ours, theirs):
    """Largest difference as a share of the largest reference value."""
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())
