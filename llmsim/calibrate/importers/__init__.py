"""Calibrations made of measurements that others took, with other tools."""
