"""Verdicts of d1's published scorer."""
