"""What is known of a model family without loading it: sizes, tensors, names, special tokens."""
