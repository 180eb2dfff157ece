"""Hooks for mmengine's Runner.

To add a hook, write it in a file of its own here, and add its name to ``engine/__init__.py``.
"""
