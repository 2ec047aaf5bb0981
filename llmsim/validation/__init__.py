"""Simulations against reality: live runs on a real executor (live, study), runs of servers elsewhere (against), and why
they differ (compare, decompose, iterations, pace, stages, drift).
"""
