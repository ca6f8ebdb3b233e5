"""Comparison of cold starts, each followed by RL, paired over seeds."""
