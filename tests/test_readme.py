"""What README says is what happens."""

import re
import subprocess
import sys
from functools import partial

import mae_plugin
import pytest

from .conftest import ROOT

README = (ROOT / 'README.md').read_text()


def test_python_snippet():
    (snippet,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    names = {}
    exec(snippet, names)
    assert names['features'].shape == (2, 197, 768)
    assert names['reconstruction'].shape == (2, 3, 224, 224)
    assert names['mask'].sum(dim=1).tolist() == [147, 147]
    assert 0.1 < names['loss'].item() < 5


def test_reconstruction_snippet(tmp_path, monkeypatch):
    """The page's, on the model as it is built, since its weights would have to be fetched."""
    snippet = re.findall(
        r'```python\n(.*?)```', (ROOT / 'docs/visualize.md').read_text(), re.DOTALL
    )[0]
    monkeypatch.setattr(
        mae_plugin, 'reconstruct_image', partial(mae_plugin.reconstruct_image, pretrained=False)
    )
    names = {}
    exec(
        snippet.replace('demo/', f'{ROOT}/demo/').replace('bird.png', f'{tmp_path}/bird.png'), names
    )
    result = names['result']
    assert result.original.shape == (224, 224, 3) and result.mask.shape == (196,)
    assert result.mask.sum() == 157 and 0.5 < result.loss < 5
    assert (tmp_path / 'bird.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    'path', ['README.md', *(p.relative_to(ROOT).as_posix() for p in ROOT.glob('docs/*.md'))]
)
def test_files_that_are_named_exist(path):
    text = (ROOT / path).read_text()
    named = re.findall(r'(?:tools|configs|tests)/[\w/.-]+\.(?:py|sh)', text)
    linked = re.findall(r'\]\((?!https?:)([^)#]+)', text)
    for name in named:
        assert (ROOT / name).is_file(), name
    for name in linked:
        assert (ROOT / path).parent.joinpath(name).exists(), name


@pytest.mark.parametrize(
    'path', ['README.md', *(p.relative_to(ROOT).as_posix() for p in ROOT.glob('docs/*.md'))]
)
def test_headings_that_are_linked_exist(path):
    """By the names that GitHub gives them."""
    for page, name in re.findall(r'\]\((?!https?:)([^)#]*)#([^)]+)\)', (ROOT / path).read_text()):
        text = ((ROOT / path).parent / page if page else ROOT / path).read_text()
        headings = re.findall(r'^#+ (.*)', text, re.MULTILINE)
        names = {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}
        assert name in names, (page, name)


def test_options_that_are_shown_exist():
    sources = ''.join(
        path.read_text()
        for path in [*ROOT.glob('tools/*.py'), ROOT / 'mae_plugin/cli/arguments.py']
    )
    for option in re.findall(r'(?<![\w-])--[a-z][\w-]+', README):
        if option not in ('--nproc-per-node', '--no-deps'):
            assert f"'{option}'" in sources, option


@pytest.mark.openmmlab_only
@pytest.mark.slow
def test_model_zoo_table_is_the_tools():
    """The rows of the base models as the tool prints them today; all rows: `make test-slow`."""
    assert_table('*base*', 12)


@pytest.mark.slow
@pytest.mark.openmmlab_only
def test_whole_model_zoo():
    assert_table('*', 25)


def assert_table(pattern: str, number: int) -> None:
    command = [sys.executable, ROOT / 'tools/model_zoo.py', '--check', '--only', pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith(('| mae_', '| vit-'))]
    assert len(rows) == number
    table = (ROOT / 'docs/model_zoo.md').read_text().splitlines()
    assert set(rows) <= set(table)
