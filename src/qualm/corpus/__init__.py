"""Documents on their way from files to packed token ids."""
