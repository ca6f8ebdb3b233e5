"""Reimplementation of d1's published scorer."""
