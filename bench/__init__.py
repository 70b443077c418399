"""Measurements: each prints a table with ratios."""
