"""What the tools print: the lines that a reader needs; everything else goes into the log file
alone.
"""

from __future__ import annotations

import logging
import re

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

# By their beginnings or ends: environment and config, which the log file has, and notices of
# mmengine's own affairs.
_NOISE = re.compile(
    r"""
    ^\s*-+\s*System\ environment: | ^Config:\n | ^Hooks\ will\ be\ executed | ^paramwise_options\ -- |
    ^LR\ is\ set\ based\ on\ batch\ size | ^Exp\ name: | ^"FileClient"\ will\ be\ deprecated |
    ^"HardDiskBackend"\ is\ the\ alias | ^`?save_param_scheduler`?\ is\ True\ but |
    is\ skipped\ since\ its\ requires_grad=False\s*$ | ^Distributed\ training\ is\ not\ used,\ all\ SyncBatchNorm |
    ^Failed\ to\ search\ registry | ^Loads\ checkpoint\ by\ | ^Layer-wise\ learning\ rate\ decay
    """,
    re.VERBOSE,
)


class NoiseFilter(logging.Filter):
    """Drops the notices of mmengine's that tell a reader nothing; errors always pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether a record is to be printed."""
        return record.levelno >= logging.ERROR or not _NOISE.search(record.getMessage())


def quiet_console(logger: logging.Logger) -> None:
    """Filters what a logger prints; what it writes to files stays whole."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.addFilter(NoiseFilter())


class _Quiet:
    """Filters the console from a Runner's first line on."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger


def build_quiet_runner(cfg: Config) -> Runner:
    """Builds the Runner of a config, whose console gets no more than a reader needs."""
    kind = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else Runner
    return type(kind.__name__, (_Quiet, kind), {}).from_cfg(cfg)


def log_files(logger: logging.Logger) -> list[logging.FileHandler]:
    """Returns the handlers by which a logger writes files."""
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
