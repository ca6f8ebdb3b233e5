"""Run directories: files, lock, checksums, checkpoints."""
