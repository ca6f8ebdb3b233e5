"""Opt-in parts of the trainers: checkpoints, guards, metrics, callbacks."""
