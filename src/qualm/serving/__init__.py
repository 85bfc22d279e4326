"""An OpenAI-compatible server over any language model, mended ones too."""
