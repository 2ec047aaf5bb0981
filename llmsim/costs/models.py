"""Shapes of decoder models: what the real executor builds with random weights, and what arithmetic follows from them.

A shape is read from a `config.json` in the layout of Hugging Face, either one that is shipped (profiling/models) or
the user's own. Llama, Mistral, Qwen2 and Qwen3 are known; what would change the work of an iteration and is not
built here (experts, sliding windows) is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsim.data import data_folders
from llmsim.errors import ConfigError, not_modelled, same_or_all

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A Llama-like decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, LM head.

    `qk_norm` (Qwen3) normalises each head of queries and keys, `attention_bias` (Qwen2) adds a bias to q, k and v.
    """

    name: str
    family: str
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_model_len: int
    norm_eps: float
    rope_theta: float
    attention_bias: bool = False
    qk_norm: bool = False
    tied_embeddings: bool = False

    @property
    def linear_parameters_per_layer(self) -> int:
        """Weights of one layer's matrix products."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.mlp

    @property
    def parameters(self) -> int:
        """All weights; norms and biases included."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.attention_bias else 0
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * (self.linear_parameters_per_layer + norms + biases) + embeddings + self.hidden

    @property
    def linear_flops_per_token(self) -> int:
        """Floating-point operations of the layers' matrix products a token; the LM head runs once a sequence."""
        return 2 * self.layers * self.linear_parameters_per_layer

    @property
    def head_flops_per_sequence(self) -> int:
        """Floating-point operations of the LM head for the one token of a sequence whose logits are wanted."""
        return 2 * self.hidden * self.vocabulary

    @property
    def attention_flops_per_pair(self) -> int:
        """Floating-point operations of one query token against one key token, over all layers and heads."""
        return 4 * self.layers * self.heads * self.head_dim

    def kv_token_bytes(self, value_bytes: int) -> int:
        """Bytes of KV a token, where a number takes `value_bytes`."""
        return 2 * self.layers * self.kv_heads * self.head_dim * value_bytes

    def weight_bytes_read(self, value_bytes: int) -> int:
        """Bytes of weights that an iteration reads: all but the embeddings' table, of which it reads a few rows."""
        table = 0 if self.tied_embeddings else self.vocabulary * self.hidden
        return (self.parameters - table) * value_bytes


def list_models() -> list[str]:
    """Names of the shipped shapes, sorted."""
    return sorted(_shipped())


def load_model(name_or_path: str | Path) -> ModelConfig:
    """The shipped shape of that name, or the `config.json` at that path (it ends in .json).

    Raises ConfigError for an unknown name, and for a model whose iterations this decoder would not do.
    """
    path = Path(name_or_path)
    if path.suffix != ".json":
        known = _shipped()
        if str(name_or_path) not in known:
            raise ConfigError(
                f"there is no model shape {str(name_or_path)!r}.{same_or_all(str(name_or_path), known)} A shape of "
                "your own is the path of its config.json"
            )
        path = known[str(name_or_path)]
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a model's config.json ({error})") from error
    if not isinstance(held, dict):
        raise ConfigError(f"{path}: must hold an object but holds {type(held).__name__}")
    name = path.parent.name if path.name == "config.json" else path.stem
    return _from_config(path, name, held)


def _from_config(path: Path, name: str, held: dict[str, Any]) -> ModelConfig:
    family = held.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"{path}: model_type must be one of {', '.join(FAMILIES)} but got {family!r}.{not_modelled(str(family))}"
        )
    window = held.get("sliding_window")
    if window and held.get("use_sliding_window", True) and window < held.get("max_position_embeddings", 0):
        raise ConfigError(
            f"{path}: sliding_window is {window}, but attention here reads all keys; set it to null to measure that"
        )
    heads = _whole(path, held, "num_attention_heads")
    hidden = _whole(path, held, "hidden_size")
    config = ModelConfig(
        name=name,
        family=family,
        hidden=hidden,
        mlp=_whole(path, held, "intermediate_size"),
        layers=_whole(path, held, "num_hidden_layers"),
        heads=heads,
        kv_heads=_whole(path, held, "num_key_value_heads", heads),
        head_dim=_whole(path, held, "head_dim", hidden // heads),
        vocabulary=_whole(path, held, "vocab_size"),
        max_model_len=_whole(path, held, "max_position_embeddings"),
        norm_eps=float(held.get("rms_norm_eps", 1e-6)),
        rope_theta=float(held.get("rope_theta", 10000.0)),
        attention_bias=bool(held.get("attention_bias", family == "qwen2")),
        qk_norm=family == "qwen3",
        tied_embeddings=bool(held.get("tie_word_embeddings", False)),
    )
    if heads % config.kv_heads or config.head_dim % 2:
        raise ConfigError(
            f"{path}: num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({config.kv_heads}) and "
            f"head_dim ({config.head_dim}) even"
        )
    return config


def _whole(path: Path, held: dict[str, Any], key: str, default: int | None = None) -> int:
    value = held.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{path}: {key} must be a whole number above 0 but got {value!r}")
    return value


def _shipped() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in data_folders("profiling/models"):
        for path in sorted(folder.glob("*.json")):
            found.setdefault(path.stem, path)
    return found
