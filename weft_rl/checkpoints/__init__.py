"""Checkpoint files: safetensors indexes, adapters, tokenizer files, checksums, hub folders."""
