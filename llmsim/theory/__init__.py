"""Closed forms and bounds that simulations are held against, and the intervals that means over seeds carry."""

from __future__ import annotations

from llmsim.theory.closed_forms import dai_capacity, m_d_1_wait, m_g_1_wait, m_m_1_wait, rad_token_rate
from llmsim.theory.fluid import fluid_capacity
from llmsim.theory.intervals import Interval, interval, intervals

__all__ = [
    "Interval",
    "dai_capacity",
    "fluid_capacity",
    "interval",
    "intervals",
    "m_d_1_wait",
    "m_g_1_wait",
    "m_m_1_wait",
    "rad_token_rate",
]
