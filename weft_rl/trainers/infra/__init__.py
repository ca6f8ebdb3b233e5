"""Opt-in trainer parts: checkpoints, guards, metrics, callbacks."""
