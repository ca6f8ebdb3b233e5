"""Run directories: files, lock, atomic writes, checksums, renamed options."""
