"""Equality of mathematical answers: one normal form, then values."""
