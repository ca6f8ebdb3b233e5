"""Records: puzzles, problems and reasoning traces."""
