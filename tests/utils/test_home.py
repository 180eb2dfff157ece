"""Users that the system knows only by number."""

import os
import pwd
from pathlib import Path

import pytest
from mae_plugin.utils import home


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """Neither a home folder, nor a name, nor a cache folder; temporary files in ``tmp_path``."""
    for name in ('HOME', 'XDG_CACHE_HOME', 'LOGNAME', 'USER', 'LNAME', 'USERNAME'):
        # Set first, so that monkeypatch removes the values of the test again.
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)

    def unknown(number: int) -> None:
        raise KeyError(f'getpwuid(): uid not found: {number}')

    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))


def test_no_home(nobody, tmp_path):
    """yapf and torch's inductor could not be imported, so no tool started."""
    with pytest.raises(RuntimeError):
        Path.home()
    with pytest.warns(UserWarning, match='there is no home folder, so caches are kept in'):
        home.provide_user()
    cache = tmp_path / f'mae_plugin-{os.getuid()}'
    assert os.environ['XDG_CACHE_HOME'] == str(cache) == str(home.temporary_cache())
    assert os.environ['USER'] == str(os.getuid())
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_else_prepared(nobody, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / f'mae_plugin-{os.getuid()}').symlink_to(tmp_path / 'elsewhere')
    assert (
        home.temporary_cache().parent == tmp_path
        and home.temporary_cache() != home.temporary_cache()
    )


def test_a_user_with_a_home_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USER', 'somebody')
    monkeypatch.delenv('XDG_CACHE_HOME')
    home.provide_user()
    assert 'XDG_CACHE_HOME' not in os.environ and os.environ['USER'] == 'somebody'
