"""The tiny world: vocabulary, puzzles and reasoning traces that are generated."""
