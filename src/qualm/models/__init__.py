"""One family a file: ids in, logits out. Knows no text."""
