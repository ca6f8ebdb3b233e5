"""Typed options: dataclasses, presets, command-line arguments."""
