"""The planted world: a seeded program whose text carries every limit at a known dose. Knows no model."""
