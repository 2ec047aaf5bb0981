"""Batch-time models (`linear`, `strata`), their calibrations, and the ranges in which these hold."""
