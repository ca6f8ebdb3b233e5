"""Trainers: wiring of the mathematics, transformers and TRL."""
