"""Generated data of the tiny model: its vocabulary, puzzles and reasoning traces."""
