"""Trainers: wiring between the mathematics, transformers and TRL."""
