"""Console output of the tools: the relevant lines; the log file has all others too."""

from __future__ import annotations

import logging
import re
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

# Beginnings or ends of messages: environment and config, which are in the log file, and notices
# about internals of mmengine.
_NOISE = re.compile(
    r"""
    ^\s*-+\s*System\ environment: | ^Config:\n | ^Hooks\ will\ be\ executed |
    ^paramwise_options\ -- |
    ^LR\ is\ set\ based\ on\ batch\ size | ^Exp\ name: | ^"FileClient"\ will\ be\ deprecated |
    ^"HardDiskBackend"\ is\ the\ alias | ^`?save_param_scheduler`?\ is\ True\ but |
    is\ skipped\ since\ its\ requires_grad=False\s*$ |
    ^Distributed\ training\ is\ not\ used,\ all\ SyncBatchNorm |
    ^Failed\ to\ search\ registry | ^Loads\ checkpoint\ by\ | ^Layer-wise\ learning\ rate\ decay
    """,
    re.VERBOSE,
)


class NoiseFilter(logging.Filter):
    """Drops notices of mmengine that carry no information for the reader; errors always pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is printed."""
        return record.levelno >= logging.ERROR or not _NOISE.search(record.getMessage())


def quiet_console(logger: logging.Logger) -> None:
    """Adds the filter to the console handlers of a logger; its log files stay complete."""
    for handler in logger.handlers:
        # A FileHandler is a StreamHandler too.
        if isinstance(handler, logging.FileHandler):
            continue
        if isinstance(handler, logging.StreamHandler):
            handler.addFilter(NoiseFilter())


class _Quiet(Runner):
    """Filters the console from the first line of a Runner on."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Builds the logger, with a filtered console."""
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger


def build_quiet_runner(cfg: Config) -> Runner:
    """Builds the Runner of a config, with a filtered console."""
    kind = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else Runner
    quiet: Any = type(kind.__name__, (_Quiet, kind), {})
    return quiet.from_cfg(cfg)


def log_files(logger: logging.Logger) -> list[logging.FileHandler]:
    """Returns the handlers of a logger that write files."""
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
