"""Several runs: their jobs and launchers."""
