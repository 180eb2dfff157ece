"""Training and probing loops that resume exactly, and their data loading."""
