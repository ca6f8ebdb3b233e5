"""The pipeline: stages in order in one run directory."""
