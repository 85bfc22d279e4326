"""Train, load and rebuild tokenizers, and render the one chat template."""
