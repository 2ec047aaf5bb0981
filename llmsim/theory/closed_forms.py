"""Closed forms that simulations are held against: waits of single-server queues, and RAD's bound."""

from __future__ import annotations

from llmsim.errors import ConfigError


def m_g_1_wait(rate: float, mean_s: float, second_moment_s2: float) -> float:
    """Mean wait in seconds of Poisson arrivals at one server (Pollaczek-Khinchine).

    `rate` requests/s, `mean_s` and `second_moment_s2` of the service time. Raises ConfigError at a load of 1 or more.
    """
    load = rate * mean_s
    if not 0 <= load < 1:
        raise ConfigError(f"a queue needs a load in [0, 1) but got {load:g}; lower the rate or the service time")
    return rate * second_moment_s2 / (2 * (1 - load))


def m_d_1_wait(rate: float, service_s: float) -> float:
    """Mean wait in seconds with constant service; arguments and errors as in m_g_1_wait."""
    return m_g_1_wait(rate, service_s, service_s**2)


def m_m_1_wait(rate: float, mean_s: float) -> float:
    """Mean wait in seconds with exponential service; arguments and errors as in m_g_1_wait."""
    return m_g_1_wait(rate, mean_s, 2 * mean_s**2)


def rad_token_rate(tile_tokens: int, tile_s: float, token_s: float) -> float:
    """Tokens per second that no scheduler exceeds on one node (arXiv 2508.01002, Theorem 1).

    An iteration of n tokens takes tile_s for each tile of `tile_tokens`, begun or full, and token_s for each token; so
    a token costs tile_s / tile_tokens + token_s at least.
    """
    if tile_tokens < 1 or tile_s < 0 or token_s < 0 or tile_s + token_s == 0:
        raise ConfigError(
            "rad_token_rate needs a tile of at least 1 token and times >= 0, not both 0, but got "
            f"{tile_tokens} tokens, {tile_s} s, {token_s} s"
        )
    return 1.0 / (tile_s / tile_tokens + token_s)


def dai_capacity(batch_tokens: int, batch_s: float) -> float:
    """Tokens per second of full batches: with less offered, a work-conserving scheduler is stable.

    Dai et al., arXiv 2504.07347: lambda (prompt + output tokens) < b_max / t(b_max).
    """
    if batch_tokens < 1 or batch_s <= 0:
        raise ConfigError(f"a batch needs at least 1 token and takes time but got {batch_tokens} tokens, {batch_s} s")
    return batch_tokens / batch_s
