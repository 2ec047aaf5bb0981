"""Before the run: is the server there, does it know the model, does it stream, and what else does it accept?

Nothing is left out silently: what the server refuses is an error if it was asked for, else a note of the result.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import aiohttp

from llmsim.client.exchange import NO_CONNECTION, NO_STREAM, TIMEOUT, Wire
from llmsim.client.prompts import ASIDE, Prompts, Texts, TokenIds, Words, read_texts
from llmsim.client.protocol import PLAIN, Features, Prompt, body
from llmsim.client.record import Record
from llmsim.client.spec import BenchSpec
from llmsim.errors import EndpointError, slip_of

PROBE_TOKENS = 8
FEW_WORDS, MANY_WORDS = 16, 80
LISTING_S = 20.0
RETRY_S = 1.0


class Listing(NamedTuple):
    """What /v1/models said: names and the longest sequence of the wanted model; `problem`: why there is no list."""

    models: list[str]
    max_model_len: int | None = None
    server: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """What the server accepts, the prompts made for it, and what a reader of the result must know."""

    features: Features
    prompts: Prompts
    notes: list[str] = field(default_factory=list)


async def list_models(session: aiohttp.ClientSession, spec: BenchSpec, wait_s: float = 0.0) -> Listing:
    """The server's models. Keeps trying for `wait_s` seconds; raises EndpointError if nobody answers."""
    until = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await _listing(session, spec)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if asyncio.get_running_loop().time() >= until:
                why = str(error) or f"no answer within {LISTING_S:g} s"
                raise EndpointError(
                    f"{spec.endpoint} cannot be reached ({why}); start the server, or correct --endpoint "
                    "(--wait SECONDS waits for a server that is still loading)"
                ) from error
        await asyncio.sleep(RETRY_S)


async def _listing(session: aiohttp.ClientSession, spec: BenchSpec) -> Listing:
    limit = aiohttp.ClientTimeout(total=LISTING_S)
    async with session.get(f"{spec.endpoint}/v1/models", timeout=limit) as response:
        server, text = response.headers.get("Server", ""), await response.text(errors="replace")
        if response.status in (401, 403):
            raise EndpointError(
                f"{spec.endpoint} refuses access (HTTP {response.status}); put the key into OPENAI_API_KEY, or give "
                "--header 'Authorization: Bearer ...'"
            )
        if response.status != 200:
            return Listing([], server=server, problem=f"/v1/models gives HTTP {response.status}")
    try:
        models: list[dict[str, Any]] = json.loads(text)["data"]
        names = {str(model["id"]): model for model in models}
    except (ValueError, TypeError, KeyError):
        return Listing([], server=server, problem="/v1/models gives no list of models")
    longest = names.get(spec.model, {}).get("max_model_len")
    return Listing(sorted(names), longest if isinstance(longest, int) else None, server)


async def prepare(wire: Wire, spec: BenchSpec, listing: Listing, prompt_seed: int) -> Server:
    """Find out what the server accepts, by a few short requests, and make the prompts for it.

    Raises EndpointError if it answers none of them, or refuses what the spec demands; ConfigError for a bad file of
    prompts.
    """
    texts = read_texts(spec.prompts) if spec.prompts is not None else None
    features, notes = await _negotiate(wire, spec, listing, prompt_seed)
    if listing.models and spec.model not in listing.models:
        notes.append(f"the server answers to the model {spec.model!r} but lists {', '.join(listing.models)}")
    if texts is not None:
        return Server(features, Texts(texts), notes)
    if features.ids:
        return Server(features, TokenIds(prompt_seed, *spec.token_ids), notes)
    words, said = await _words(wire, spec, features, prompt_seed)
    return Server(features, words, [*notes, *said])


async def _negotiate(wire: Wire, spec: BenchSpec, listing: Listing, seed: int) -> tuple[Features, list[str]]:
    """All that is wanted if the server takes it, else what of it the server takes, and notes on the rest."""
    wanted = Features(spec.force_length is not False, spec.usage is not False, spec.may_send_ids)
    whole = await _probe(wire, spec, wanted, seed)
    if whole.ok:
        return wanted, []
    plain = whole if wanted == PLAIN else await _probe(wire, spec, PLAIN, seed)
    if not plain.ok:
        raise EndpointError(_refusal(spec, listing, plain))
    taken, notes = PLAIN, []
    for name in [name for name, is_wanted in wanted._asdict().items() if is_wanted]:
        alone = await _probe(wire, spec, PLAIN._replace(**{name: True}), seed)
        if alone.ok:
            taken = taken._replace(**{name: True})
        else:
            notes.append(_left_out(spec, name, alone.why))
    if taken != PLAIN and not (together := await _probe(wire, spec, taken, seed)).ok:
        raise EndpointError(f"{spec.url} takes {taken} one by one but not together ({together.why})")
    return taken, notes


async def _probe(wire: Wire, spec: BenchSpec, features: Features, seed: int) -> Record:
    """A short request with these features."""
    source: Prompts = TokenIds(seed, *spec.token_ids) if features.ids else Words(seed)
    return await _ask(wire, spec, features, source.make(ASIDE, PROBE_TOKENS))


async def _ask(
    wire: Wire, spec: BenchSpec, features: Features, prompt: Prompt, output_tokens: int = PROBE_TOKENS
) -> Record:
    record = Record(ASIDE, 0, output_tokens)
    await wire.exchange(body(spec, features, prompt, output_tokens), record)
    return record


def _refusal(spec: BenchSpec, listing: Listing, probe: Record) -> str:
    """Why the plainest request came to nothing, and what to do."""
    if probe.reason == NO_STREAM:
        return f"{spec.url} does not stream ({probe.detail}), so no token has a time; give a server that streams"
    if probe.reason in (NO_CONNECTION, TIMEOUT):
        return f"{spec.url} did not answer a short request ({probe.why})"
    if listing.models and spec.model not in listing.models:
        hint = slip_of(spec.model, listing.models)
        known = f" It serves: {', '.join(listing.models)}."
        return f"{spec.endpoint} does not know the model {spec.model!r} ({probe.why}).{hint}{known}"
    unlisted = f" ({listing.problem}, so models cannot be named)" if listing.problem else ""
    return f"{spec.url} refuses a plain request for the model {spec.model!r}: {probe.why}{unlisted}"


def _left_out(spec: BenchSpec, name: str, why: str) -> str:
    """The note on a feature that the server refuses; EndpointError if the spec demands it."""
    demanded, option, note = {
        "force": (
            spec.force_length,
            "--no-force-length",
            "the server refuses ignore_eos and min_tokens, so answers may be shorter than asked",
        ),
        "usage": (spec.usage, "--no-usage", "the server refuses stream_options"),
        "ids": (
            spec.prompt_kind == "ids",
            "--prompt-kind words",
            "the server refuses token ids, so prompts are words and right in length on average only",
        ),
    }[name]
    if demanded:
        raise EndpointError(f"{spec.url}: {note} ({why}); give {option}")
    return f"{note} ({why})"


async def _words(wire: Wire, spec: BenchSpec, features: Features, seed: int) -> tuple[Words, list[str]]:
    """Words fitted to the server's own token counts of two prompts, where it gives them."""
    plain = Words(seed)
    few = await _ask(wire, spec, features, plain.make(ASIDE + 1, FEW_WORDS))
    many = await _ask(wire, spec, features, plain.make(ASIDE + 2, MANY_WORDS))
    taken = "so a word was taken for a token"
    if broken := next((record for record in (few, many) if not record.ok), None):
        return plain, [f"the server did not answer a prompt of {MANY_WORDS} words or fewer ({broken.why}), {taken}"]
    if few.prompt_reported is None or many.prompt_reported is None:
        return plain, [f"the server does not say how long prompts are, {taken}"]
    try:
        fitted = Words.fitted(seed, (FEW_WORDS, few.prompt_reported), (MANY_WORDS, many.prompt_reported))
    except ValueError as error:
        return plain, [f"the server's counts of prompts cannot be used ({error}), {taken}"]
    return replace(fitted, kind=f"words ({fitted.tokens_per_word:.2f} tokens each, {fitted.overhead:.1f} besides)"), []


async def warm_up(wire: Wire, spec: BenchSpec, server: Server, lengths: list[tuple[int, int]]) -> None:
    """Requests of these (prompt, output) lengths that nobody measures, with prompts that are none of the run's.

    Raises EndpointError if one fails: the run would fail as well.
    """
    source = Words(0) if isinstance(server.prompts, Texts) else server.prompts
    for at, (prompt_tokens, output_tokens) in enumerate(lengths):
        prompt = source.make(ASIDE + 3 + at, prompt_tokens)
        record = await _ask(wire, spec, server.features, prompt, output_tokens)
        if not record.ok:
            raise EndpointError(
                f"{spec.url} failed a warm-up request of {prompt_tokens} prompt and {output_tokens} output tokens "
                f"({record.why}); --warm-up-requests 0 goes on without"
            )
