"""Checkpoint files: safetensors, adapters, tokenizer files, Hub downloads."""
