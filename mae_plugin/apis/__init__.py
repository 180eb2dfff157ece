"""Functions and classes for use from Python."""

from ..analysis import *  # noqa: F403
from ..analysis import __all__  # noqa: F401
