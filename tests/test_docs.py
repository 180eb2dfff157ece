"""Tests that the documentation site is complete and that its pages agree with the code."""

import ast
import importlib
import re
import subprocess
import sys
import zlib
from pathlib import Path

import mae_plugin
import pytest

from .conftest import ROOT

DOCS = ROOT / 'docs'
PACKAGE = ROOT / 'mae_plugin'
ROOMS = ('models', 'weights', 'data', 'analysis', 'engine', 'apis')
OTHER_PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmpretrain', 'numpy', 'PIL', 'concurrent')
ROLE = re.compile(r':(?:class|func|meth|mod|data|attr|exc):`([^`]+)`')


def public_names() -> list[tuple[str, object]]:
    """Returns (qualified name, object) for every name in the ``__all__`` of a room."""
    found = []
    for room in ROOMS:
        module = importlib.import_module(f'mae_plugin.{room}')
        for name in module.__all__:
            value = getattr(module, name)
            found.append((f'{value.__module__}.{value.__qualname__}', value))
    return found


def defined_names(path: Path) -> set[str]:
    """Returns the names that a module defines: functions, classes, their methods, and variables."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        names |= names_of(node)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                names |= {f'{node.name}.{name}' for name in names_of(member)}
    return names


def names_of(node: ast.stmt) -> set[str]:
    """Returns the names that one statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def module_name(path: Path) -> str:
    """Returns the dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def test_every_page_is_in_the_navigation():
    pages = {path.stem for path in DOCS.glob('*.md')} - {'index'}
    navigation = set()
    for block in re.findall(r'```{toctree}\n(.*?)```', (DOCS / 'index.md').read_text(), re.DOTALL):
        entries = [line for line in block.splitlines() if line and not line.startswith(':')]
        navigation.update(entries)
    # sphinx.ext.apidoc writes this page at build time.
    navigation.remove('api/modules')
    assert navigation == pages


def test_every_public_name_is_in_the_api_reference():
    """The reference covers public modules of the package and objects with a docstring."""
    names = public_names()
    assert len(names) > 40
    for name, value in names:
        module = value.__module__
        assert module.startswith('mae_plugin.'), name
        assert not any(part.startswith('_') for part in module.split('.')), name
        assert (value.__doc__ or '').strip(), name


def test_names_in_roles_exist():
    known = set()
    for path in PACKAGE.rglob('*.py'):
        module = module_name(path)
        known.add(module)
        known |= {f'{module}.{name}' for name in defined_names(path)}
    # mae_plugin.models.mae.MAE ends with mae.MAE and with MAE.
    suffixes = set()
    for name in known:
        parts = name.split('.')
        suffixes |= {'.'.join(parts[start:]) for start in range(len(parts))}
    roles = 0
    for path in PACKAGE.rglob('*.py'):
        for target in ROLE.findall(path.read_text()):
            target = ''.join(target.split()).lstrip('.~')
            if target.split('.')[0] not in OTHER_PACKAGES:
                assert target in suffixes, (str(path), target)
                roles += 1
    assert roles > 50


def test_functions_named_in_the_architecture_exist():
    text = (DOCS / 'architecture.md').read_text()
    rows = re.findall(r'^\| \d+ \| `([^`]+)` \| `([^`]+)` \|', text, re.MULTILINE)
    assert len(rows) >= 14
    for path, function in rows:
        assert function in defined_names(ROOT / path), (path, function)


def test_paths_named_in_the_architecture_exist():
    text = (DOCS / 'architecture.md').read_text()
    paths = re.findall(r'`((?:mae_plugin|tests|configs|tools|benchmarks|docs)/[^`]*)`', text)
    assert len(paths) > 30
    for path in paths:
        if 'NAME' not in path:
            assert (ROOT / path).exists(), path
    rooms = re.findall(r'^\| `(mae_plugin/\w+/)` \| .* \| `([^`]+)` \|', text, re.MULTILINE)
    assert {Path(room).name for room, _ in rooms} == {
        path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()
    }
    for room, file in rooms:
        assert (ROOT / room / file).is_file(), (room, file)


def test_root_pages_of_the_repository_link_to_files_that_exist():
    for page in ('CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CODE_OF_CONDUCT.md'):
        text = (ROOT / page).read_text()
        for link in re.findall(r'\]\((?!https?:)([^)#]+)', text):
            assert (ROOT / link).exists(), (page, link)


def test_citation_and_changelog_name_this_version():
    version = mae_plugin.__version__
    assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
    assert re.search(
        rf'^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$',
        (ROOT / 'CHANGELOG.md').read_text(),
        re.MULTILINE,
    )


@pytest.mark.slow
@pytest.mark.openmmlab_only
def test_site_builds_without_warnings_and_holds_every_public_name(tmp_path):
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-b', 'html', DOCS, tmp_path]
    subprocess.run(command, check=True, cwd=ROOT)
    for page in DOCS.glob('*.md'):
        assert (tmp_path / f'{page.stem}.html').is_file()
    # Four header lines precede the compressed list of names.
    content = (tmp_path / 'objects.inv').read_bytes().split(b'\n', 4)[4]
    names = {line.split(' ')[0] for line in zlib.decompress(content).decode().splitlines()}
    for name, _ in public_names():
        assert name in names, name
