"""Errors as one sentence on standard error, with the traceback in the log file."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..engine.config.preflight import describe_run, preflight
from ..engine.loops.collect import collect_without_disk
from ..utils._compat.mmengine import load_source
from ..weights.check_finite import check_finite_checkpoint
from .console import build_quiet_runner, log_files

# Errors whose message is clear by itself; for others, the sentence names the type.
_PLAIN = (ValueError, OSError, KeyError, RuntimeError, ImportError, AssertionError)
# Prefix that mmengine's registries add to the error of a class that they build.
_BUILT_BY = re.compile(r'^(class `\w+` in \S+: )+')
# The library's errors name an argument. In the tools, they name the flag that sets the argument.
_FLAGS = {
    'force=True': '--force',
    'grid=(ROWS, COLUMNS)': '--src-grid ROWS COLUMNS',
    'decoder_num_heads=N': '--decoder-num-heads N',
    'num_heads=N': '--num-heads N',
    'trust_checkpoints()': '--trust-checkpoint',
}


def sentence_of(error: BaseException) -> str:
    """Returns the message of an error as one sentence of at most 600 characters."""
    if isinstance(error, URLError):
        return f'the weights could not be fetched ({error}); name a file on this machine instead'
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f'{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}'
    if text.startswith('Caught ') and 'Traceback' in text:
        # The traceback that torch adds to the error of a worker ends with the error itself.
        text = re.sub(r'^[\w.]+: ', '', text.strip().splitlines()[-1])
    text = _BUILT_BY.sub('', ' '.join(text.split()))
    if not text:
        return type(error).__name__
    if not isinstance(error, _PLAIN):
        text = f'{type(error).__name__}: {text}'
    return text[:600]


def with_flags(sentence: str) -> str:
    """Replaces the library's arguments in an error's sentence by the flags of the tools."""
    for argument, flag in _FLAGS.items():
        sentence = sentence.replace(argument, flag)
    return sentence


class SetupErrors(Hook):
    """Turns errors into one sentence on standard error and exit code 1.

    It is a context around building and running a Runner, and a hook of that Runner. Once the run
    has begun, the traceback goes to the log file, which the sentence names; a process without a log
    file prints the traceback. With ``MAE_TRACEBACK=1`` in the environment, every error keeps its
    traceback.
    """

    _running = False
    _runner: Runner | None = None

    def build_runner(self, cfg: Config) -> Runner:
        """Builds the Runner of a config with this object among its hooks, and checks its parts."""
        runner = build_quiet_runner(cfg)
        runner.register_hook(self)
        self._runner = runner
        preflight(runner)
        return runner

    def before_run(self, runner: Runner) -> None:
        """Collects the results of metrics without a shared disk, for any config."""
        collect_without_disk(runner)

    def before_train(self, runner: Runner) -> None:
        """Logs a description of the run and its log file; later errors are errors of the run."""
        self._running = True
        if runner is not None:
            print_log(describe_run(runner), runner.logger)
            self._log_files(runner)

    def before_test(self, runner: Runner) -> None:
        """Logs the path of the log file; later errors are errors of the run."""
        self._running = True
        if runner is not None:
            self._log_files(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raises ValueError if weights of a loaded checkpoint are not finite."""
        check_finite_checkpoint(checkpoint, load_source(runner) or 'the checkpoint')

    def _log_files(self, runner: Runner) -> None:
        """Logs the path of each log file."""
        for handler in log_files(runner.logger):
            print_log(
                f'Environment, config and all messages are in {handler.baseFilename}', runner.logger
            )

    def __enter__(self) -> SetupErrors:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or os.environ.get('MAE_TRACEBACK'):
            return
        files = log_files(self._runner.logger) if self._runner is not None else []
        if self._running and not files:
            # Other ranks than the first write no log file.
            return
        record = logging.LogRecord(
            'mae_plugin', logging.ERROR, '', 0, 'error', (), (type(error), error, trace)
        )
        for handler in files:
            handler.handle(record)
        where = f' (traceback in {files[0].baseFilename})' if self._running else ''
        sentence = with_flags(sentence_of(error))
        sys.exit(f'{Path(sys.argv[0]).name}: error: {sentence}{where}')
