"""Reads ``.pth`` files as plain data, without unpickling."""
