"""Seeded mutations of what llmsim reads: a clean refusal or a sound result, never a traceback."""
