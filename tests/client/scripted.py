"""A server that misbehaves on purpose: each request is answered as a script says. For what a real one rarely does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from llmsim.client.spec import BenchSpec
from llmsim.spec import strict
from llmsim.traces.spec import WorkloadSpec

MODEL = "small"
Script = Callable[[int, dict[str, Any]], str]


@dataclass
class Scripted:
    """`script(n, body)` names the answer to the nth request of a run; probes are answered well.

    Answers: good, short, empty, unended, cut, garbage, error, hang, or `HTTP 503`. `refuses` are fields of a body, or
    ids, or stream. A token comes every `token_s` seconds.
    """

    script: Script = lambda n, body: "good"
    models: tuple[str, ...] = (MODEL,)
    refuses: frozenset[str] = frozenset()
    token_s: float = 0.001
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of requests, probes included."""
    url: str = ""

    async def models_list(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name, "max_model_len": 4096} for name in self.models]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        if body["model"] not in self.models:
            return web.json_response({"error": "no such model"}, status=404)
        if refused := (self.refuses - {"stream"}) & set(body):
            return web.json_response({"error": f"extra fields {sorted(refused)}"}, status=422)
        if "ids" in self.refuses and isinstance(body.get("prompt"), list):
            return web.json_response({"error": "prompt must be a string"}, status=400)
        if not body.get("stream") or "stream" in self.refuses:
            return web.json_response({"choices": [{"text": "all at once"}]})
        probe = body["max_tokens"] == 8  # as llmsim.client.ready asks; workloads of the tests ask for other lengths
        kind = "good" if probe else self.script(self._nth(body), body)
        return await self._stream(request, body, kind)

    def _nth(self, body: dict[str, Any]) -> int:
        return sum(1 for seen in self.seen if seen.get("max_tokens") != 8) - 1

    async def _stream(self, request: web.Request, body: dict[str, Any], kind: str) -> web.StreamResponse:
        if kind.startswith("HTTP"):
            return web.Response(status=int(kind[4:]), text="not now")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if kind == "hang":
            await asyncio.sleep(60)
        count = {"short": 3, "empty": 0}.get(kind, body["max_tokens"])
        for at in range(count):
            if at == 2 and kind == "cut":
                assert request.transport is not None
                request.transport.abort()
                return response
            if at == 2 and kind == "garbage":
                await response.write(b"data: {nonsense\n\n")
            if at == 2 and kind == "error":
                await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                return response
            await response.write(_event({"choices": [{"text": f" t{at}", "index": 0, "finish_reason": None}]}))
            await asyncio.sleep(self.token_s)
        if kind != "unended":
            await response.write(_event({"choices": [{"text": "", "finish_reason": "length"}]}))
            if body.get("stream_options"):
                usage = {"prompt_tokens": _length(body["prompt"]), "completion_tokens": count}
                await response.write(_event({"choices": [], "usage": usage}))
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _length(prompt: str | list[int]) -> int:
    """Tokens of a prompt: its ids, or three a word and seven besides."""
    return len(prompt) if isinstance(prompt, list) else 3 * len(prompt.split()) + 7


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@asynccontextmanager
async def serving(server: Scripted, port: int = 0) -> AsyncIterator[Scripted]:
    """The server on a free port (or this one), in the running event loop."""
    app = web.Application(client_max_size=1 << 24)
    app.add_routes([web.get("/v1/models", server.models_list), web.post("/v1/completions", server.answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def spec(
    url: str, *, requests: int = 8, output: int = 5, arrivals: dict[str, Any] | None = None, **more: Any
) -> BenchSpec:
    """A small workload of prompts of 20 to 60 tokens."""
    workload = {
        "num_requests": requests,
        "arrivals": arrivals or {"kind": "poisson", "rate": 200.0},
        "lengths": {
            "kind": "synthetic",
            "prompt": {"kind": "uniform", "low": 20, "high": 60},
            "output": {"kind": "fixed", "value": output},
        },
    }
    return BenchSpec(
        workload=strict.load(WorkloadSpec, workload, "test"),
        endpoint=url,
        model=more.pop("model", MODEL),
        warm_up_requests=more.pop("warm_up_requests", 0),
        **more,
    )
