"""Calibrations made of published numbers, each a script that writes its file again."""
