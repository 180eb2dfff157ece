"""Bytes of an image file in, pixels out."""
