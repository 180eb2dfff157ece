"""A cache of downloads, which identifies files by the whole URL and survives bad servers."""

import hashlib
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import pytest
from mae_plugin.weights import downloads, transfer
from mae_plugin.weights.downloads import fetch

CONTENT = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; each entry of ``faults`` for a path spoils one request first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.requests: list[tuple[str, dict]] = []
        self.with_etag = True
        self.over = threading.Event()
        self.url = f'http://127.0.0.1:{self.server_port}'

    def bodies(self) -> list[int]:
        """Returns the status of every answer so far, and clears the list."""
        statuses = [status for status, _ in self.requests]
        self.requests.clear()
        return statuses


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        etag = f'"{hashlib.sha256(content or b"").hexdigest()[:8]}"'
        faults = self.server.faults.get(self.path)
        fault = faults.pop(0) if faults else None
        status, start = 200, 0
        if content is None:
            status = 404
        elif isinstance(fault, int):
            status = fault
        elif self.server.with_etag and self.headers.get('If-None-Match') == etag:
            status = 304
        elif (span := self.headers.get('Range')) and self.headers['If-Range'] == etag:
            status, start = 206, int(span[len('bytes=') : -1])
        self.server.requests.append((status, dict(self.headers)))
        if fault == 'silent':
            self.server.over.wait(20)
            return
        self.send_response(status)
        body = content[start:] if status in (200, 206) else b''
        if self.server.with_etag:
            self.send_header('ETag', etag)
        if status == 206:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        if status != 304:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == 'cut' else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, 'PAUSES', (0.0, 0.0))
    monkeypatch.setattr(transfer, 'TIMEOUT', 0.3)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def read(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


def leftovers(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix not in ('.pth', '.json', '.lock')]


def test_files_of_one_name(server, tmp_path):
    """Formerly the cache used the last part of a URL, so a second URL got the first one's file."""
    server.files = {
        '/a/epoch_300.pth': b'one',
        '/b/epoch_300.pth': b'two',
        '/b/epoch_300.pth?v=2': b'three',
    }
    for path, content in server.files.items():
        assert read(fetch(server.url + path, tmp_path)) == content


def test_used_again_until_it_changes(server, tmp_path):
    url = f'{server.url}/c.pth'
    server.files['/c.pth'] = CONTENT
    path = fetch(url, tmp_path)
    assert fetch(url, tmp_path) == path and server.bodies() == [200, 304]
    # Of the same length, as a checkpoint of the same model is.
    server.files['/c.pth'] = CONTENT[::-1]
    assert read(fetch(url, tmp_path)) == CONTENT[::-1] and server.bodies() == [200]
    server.files['/c.pth'] = CONTENT
    server.faults['/c.pth'] = [503]
    assert read(fetch(url, tmp_path)) == CONTENT and server.bodies() == [503, 200]


def test_without_a_version_nothing_is_taken_for_unchanged(server, tmp_path):
    server.with_etag = False
    for content in (CONTENT, CONTENT[::-1]):
        server.files['/c.pth'] = content
        assert read(fetch(f'{server.url}/c.pth', tmp_path)) == content


def test_offline_the_copy_is_used(server, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(downloads, 'print_log', lambda text, logger: messages.append(text))
    server.files['/c.pth'] = CONTENT
    path = fetch(f'{server.url}/c.pth', tmp_path)
    server.shutdown()
    server.server_close()
    assert fetch(f'{server.url}/c.pth', tmp_path) == path and read(path) == CONTENT
    assert (
        len(messages) == 1
        and 'could not be checked ([Errno 111] Connection refused)' in messages[0]
    )
    with pytest.raises(URLError, match=r'/other\.pth: .*refused'):
        fetch(f'{server.url}/other.pth', tmp_path)


@pytest.mark.parametrize(
    ('faults', 'statuses'),
    [
        ([503], [503, 200]),
        # The next attempt continues in the middle, or starts again after a change.
        (['cut'], [200, 206]),
        (['cut', 'cut'], [200, 206, 206]),
        (['silent'], [200, 200]),
    ],
)
def test_a_fault_that_passes(server, tmp_path, faults, statuses):
    server.files['/c.pth'] = CONTENT
    server.faults['/c.pth'] = faults
    assert read(fetch(f'{server.url}/c.pth', tmp_path)) == CONTENT
    assert server.bodies() == statuses and leftovers(tmp_path) == []


def test_content_that_changes_half_way(server, tmp_path):
    """The rest of the old content is not appended to the first half of the new one."""
    contents = itertools.chain([CONTENT], itertools.repeat(CONTENT[::-1]))

    class Changing(dict):
        def get(self, path):
            return next(contents)

    server.files = Changing()
    server.faults['/c.pth'] = ['cut']
    assert read(fetch(f'{server.url}/c.pth', tmp_path)) == CONTENT[::-1]


@pytest.mark.parametrize(
    ('fault', 'messages', 'attempts'),
    [
        ('cut', r'the connection ended after [\d,]+ of 10,240 bytes', 3),
        ('silent', r'the server sent nothing for 0\.3 s', 3),
        (503, 'the server answers 503', 3),
        (403, 'the server answers 403', 1),
    ],
)
def test_a_fault_that_stays(server, tmp_path, fault, messages, attempts):
    """Formerly half a download stayed in the cache, and a silent server blocked the run."""
    server.files['/c.pth'] = CONTENT
    server.faults['/c.pth'] = [fault] * 3
    with pytest.raises(URLError, match=rf'/c\.pth: {messages}'):
        fetch(f'{server.url}/c.pth', tmp_path)
    assert (
        len(server.bodies()) == attempts
        and leftovers(tmp_path) == []
        and not list(tmp_path.glob('*.pth'))
    )
    server.faults.clear()
    assert read(fetch(f'{server.url}/c.pth', tmp_path)) == CONTENT


def test_a_hash_in_the_name(server, tmp_path):
    """It is verified as torch.hub names files, and not requested again; a date is not a hash."""
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert not digest.isdecimal()
    server.files = {
        f'/mae-{digest}.pth': CONTENT,
        '/mae-0badbeef.pth': CONTENT,
        '/mae-20220829.pth': CONTENT,
    }
    for _ in range(2):
        assert read(fetch(f'{server.url}/mae-{digest}.pth', tmp_path)) == CONTENT
    assert server.bodies() == [200]
    assert read(fetch(f'{server.url}/mae-20220829.pth', tmp_path)) == CONTENT
    with pytest.raises(ValueError, match=f'its SHA-256 begins with {digest}, not 0badbeef'):
        fetch(f'{server.url}/mae-0badbeef.pth', tmp_path)
    assert not list(tmp_path.glob('*0badbeef.pth')) and leftovers(tmp_path) == []


def test_several_at_once(server, tmp_path):
    """One process downloads; the others wait for it and use its copy."""
    server.files['/c.pth'] = CONTENT
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(f'{server.url}/c.pth', tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4 and len(set(paths)) == 1 and read(paths[0]) == CONTENT
    assert sorted(server.bodies()) == [200, 304, 304, 304]


def test_a_damaged_copy_is_fetched_anew(server, tmp_path):
    server.files['/c.pth'] = CONTENT
    path = fetch(f'{server.url}/c.pth', tmp_path)
    with open(path, 'r+b') as file:
        file.truncate(100)
    assert read(fetch(f'{server.url}/c.pth', tmp_path)) == CONTENT
