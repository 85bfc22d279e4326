"""Strings in, strings out. No torch."""
