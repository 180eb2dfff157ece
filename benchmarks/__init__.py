"""Comparisons of the plugin with other implementations; each module prints its own tables."""
