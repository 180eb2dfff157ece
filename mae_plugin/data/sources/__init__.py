"""Sources of images: folders, tar and zip files, lists of images and labels, and their index."""
