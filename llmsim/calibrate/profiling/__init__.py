"""Measuring a model on a device: cases -> plan -> campaign (measure, memory, host) -> a folder of measurements."""
