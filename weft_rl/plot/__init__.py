"""Reward curves and other figures."""
