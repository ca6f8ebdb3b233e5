"""Vocabulary, puzzles and traces of the tiny model."""
