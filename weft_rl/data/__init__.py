"""Task records, problems and reasoning traces."""
