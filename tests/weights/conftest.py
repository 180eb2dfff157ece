"""Fixtures of the tests of weights."""

import functools
import http.server
import threading

import pytest


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A URL that serves ``tmp_path``, with an empty download cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}'
        running.shutdown()
