"""Check of a checkpoint: layout, tokenizer, chat template, generations, NELBO, score."""
