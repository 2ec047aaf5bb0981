"""Measurements in, calibrations out: profiling/ measures, fitting/ fits, importers/ reads what others measured,
published/ holds the fits of published numbers behind two shipped calibrations.
"""
