"""Decoding of image files from bytes to pixels."""
