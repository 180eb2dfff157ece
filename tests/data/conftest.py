"""Fixtures of the tests of data."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log():
    """The lines of the plugin's log."""
    logger = MMLogger.get_current_instance()
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
