"""Helpers for all other packages: atomic files, locks, and processes that end with their parent."""
