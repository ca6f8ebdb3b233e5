"""Held-out evaluation: generation, scores, likelihood, stored results."""
