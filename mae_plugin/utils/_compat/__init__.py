"""The only modules that use private names of other packages, one module per package.

Each function states the versions whose private name it uses. ``tests/utils/test_compat.py`` fails
with the function's name when a new version lacks that private name.
"""
