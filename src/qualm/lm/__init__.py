"""The one interface to any language model, and the models behind it."""
