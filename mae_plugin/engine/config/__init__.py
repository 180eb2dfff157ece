"""Reads configs, and checks their settings before anything is built."""
