"""Reading configs, and checking their settings before anything is built."""
