"""Equality of mathematical answers: normal form first, then value."""
