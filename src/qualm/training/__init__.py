"""One loop that takes a loss."""
