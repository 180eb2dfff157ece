"""Measurements of the project beside its rivals; each file prints its own tables."""
