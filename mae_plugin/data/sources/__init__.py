"""Folders, tar and zip files, lists of images and labels, and the index of their names."""
