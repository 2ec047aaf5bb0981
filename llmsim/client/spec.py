"""What to measure: a workload, where to send it, and what the prompts are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llmsim.errors import ConfigError
from llmsim.spec import strict
from llmsim.spec.run_spec import check_percentiles
from llmsim.traces import checks
from llmsim.traces.spec import WorkloadSpec

COMPLETIONS, CHAT = "completions", "chat"
APIS = {COMPLETIONS: "/v1/completions", CHAT: "/v1/chat/completions"}
AUTO, IDS, WORDS = "auto", "ids", "words"
PROMPT_KINDS = (AUTO, IDS, WORDS)

OF_THE_ENGINE = ("calibration", "scheduler", "schedulers", "engine", "cluster", "step_by_step", "strict_range")
"""What a run's YAML says about the simulated engine: a real server brings its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSpec:
    """Everything that decides what is sent.

    `workload`, `seed`, `warmup_s` (s), `slo` and `percentiles` mean what they mean in a RunSpec, so equal ones make
    equal requests. `endpoint` is the server's address without /v1. `prompt_kind` says what prompts of the workload's
    lengths are made of: random token `ids`, `words`, or `auto` (ids where the server takes them); `prompts` is a file
    of texts to send instead. Ids are drawn from `token_ids` (first, last). `prompt_seed` None draws other prompts in
    every run: a server that caches prefixes would answer the same ones faster. `force_length` (ignore_eos,
    min_tokens) and `usage` (stream_options) None: if the server takes them. `extra_body` is laid over every request.
    A request that takes longer than `timeout_s` has failed. `warm_up_requests` are sent before and not measured.
    `max_model_len` (tokens) None: what the server says, else no limit.

    Raises ConfigError for what cannot be used.
    """

    workload: WorkloadSpec
    endpoint: str
    model: str
    name: str = "bench"
    api: str = COMPLETIONS
    prompts: str | None = None
    prompt_kind: str = AUTO
    token_ids: tuple[int, int] = (1000, 30_000)
    prompt_seed: int | None = None
    force_length: bool | None = None
    usage: bool | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 600.0
    warm_up_requests: int = 1
    max_model_len: int | None = None
    slo: tuple[str, ...] = ()
    percentiles: tuple[float, ...] | None = None
    warmup_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks.one_of("api", self.api, tuple(APIS))
        checks.one_of("prompt_kind", self.prompt_kind, PROMPT_KINDS)
        checks.number("timeout_s", self.timeout_s, above=0)
        checks.number("warmup_s", self.warmup_s, least=0)
        checks.whole("warm_up_requests", self.warm_up_requests, 0)
        checks.whole("max_model_len", self.max_model_len, 1)
        checks.whole("prompt_seed", self.prompt_seed, 0)
        check_percentiles(self.percentiles)
        object.__setattr__(self, "endpoint", _base(self.endpoint))
        first, last = self.token_ids
        if not 0 <= first <= last:
            raise ConfigError(
                f"token_ids must be two numbers >= 0, the first not above the last, but got {first}:{last}"
            )
        if self.prompt_kind == IDS and (self.api == CHAT or self.prompts is not None):
            why = "prompts of a file are texts" if self.prompts is not None else "a chat message is text"
            raise ConfigError(f"prompt_kind 'ids' cannot be: {why}; give words, or leave it out")

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.endpoint + APIS[self.api]

    @property
    def may_send_ids(self) -> bool:
        """Whether prompts may be lists of token ids, if the server takes them."""
        return self.api == COMPLETIONS and self.prompts is None and self.prompt_kind != WORDS


def load_bench(mapping: Mapping[str, Any], where: str = "command line") -> BenchSpec:
    """The spec in a mapping, `where` naming its place; keys of the simulated engine (OF_THE_ENGINE) are left out.

    Raises ConfigError for an unknown key, a missing one or a value that cannot be used.
    """
    for required, option in (("workload", "--trace"), ("endpoint", "--endpoint"), ("model", "--model")):
        if required not in mapping:
            raise ConfigError(f"{where}: {required!r} is missing; give it in the YAML file or as {option}")
    return strict.load(BenchSpec, {key: value for key, value in mapping.items() if key not in OF_THE_ENGINE}, where)


def _base(endpoint: str) -> str:
    """The address without a trailing /v1, to which the API's path is added."""
    base = endpoint.rstrip("/").removesuffix("/v1")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"endpoint must be an address such as http://127.0.0.1:8000 but got {endpoint!r}")
    if parts.path.endswith("/completions"):
        raise ConfigError(
            f"endpoint must be the server's address without the API's path but got {endpoint!r}; "
            "give --api completions or --api chat"
        )
    return base
