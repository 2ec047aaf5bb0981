"""Measurements to a batch-time model: features -> selection (candidates, robust_fit, cross_validation) -> calibrate."""
