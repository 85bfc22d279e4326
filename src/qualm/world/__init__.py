"""The planted world: a seeded program that writes text in which every limit is planted at a known dose. Knows no model."""
