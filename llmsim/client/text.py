"""The measuring in a few lines of text, below the table that every run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmsim.runs.contests import number


def client_text(summary: Mapping[str, Any]) -> str:
    """What was sent to whom, what came back, and how punctual the client was; one line each."""
    client = summary["client"]
    outputs = client["outputs"]
    lines = [
        f"{client['endpoint']}, {client['api']}, model {client['model']}",
        f"requests: {summary['sent']:,} sent, {summary['completed']:,} answered, {summary['failed']:,} failed, "
        f"{summary['unfinished']:,} unfinished, {summary['requests']['not_sent']:,} not sent",
        f"prompts: {client['prompts']['kind']}; {_tokens(client['prompts'])}",
        f"answers: {outputs['given_tokens']:,} tokens, {outputs['asked_tokens']:,} asked; {outputs['as_asked']:,} as "
        f"asked, {outputs['shorter']:,} shorter, {outputs['longer']:,} longer",
        f"sends late: {_points(client['send_lateness_ms'])}; client wakes late: {_points(client['loop_lag_ms'])}",
    ]
    return "\n".join(lines)


def _tokens(prompts: Mapping[str, Any]) -> str:
    reported = prompts["reported_tokens"]
    given = "lengths not reported" if reported is None else f"{reported:,} tokens reported"
    return f"{given}, {prompts['asked_tokens']:,} asked" if prompts["asked_tokens"] else given


def _points(points: Mapping[str, float] | None) -> str:
    if points is None:
        return "not known"
    return f"p50 {number(points['p50'])} ms, p99 {number(points['p99'])} ms, at most {number(points['max'])} ms"
