"""Tests that the metadata of the package agrees with the pinned environments and with itself."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import ROOT

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
EXTRAS = PROJECT['optional-dependencies']


def read_pins(name: str) -> dict[str, str]:
    """Returns the pinned version of each package of one requirements file."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().split()
    return {canonicalize_name(line.split('==')[0]): line.split('==')[1] for line in lines}


def all_requirements() -> list[Requirement]:
    """Returns the requirements of the package and of all extras."""
    lines = list(PROJECT['dependencies'])
    for extra in EXTRAS.values():
        lines += extra
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize('stack', ['openmmlab', 'onedl', 'docs'])
def test_each_line_of_a_requirements_file_is_one_pin(stack):
    lines = (ROOT / 'requirements' / f'{stack}.txt').read_text().splitlines()
    assert lines == sorted(set(lines), key=lambda line: line.split('==')[0])
    for line in lines:
        assert re.fullmatch(r'[a-z0-9-]+==[0-9][0-9a-z.]*', line), line


@pytest.mark.parametrize('stack', ['openmmlab', 'onedl'])
def test_pinned_versions_are_within_the_bounds(stack):
    pins = read_pins(stack)
    compared = 0
    for requirement in all_requirements():
        version = pins.get(canonicalize_name(requirement.name))
        if version is not None:
            assert requirement.specifier.contains(version), (str(requirement), version)
            compared += 1
    assert compared >= 14


def test_every_requirement_has_a_lower_bound_and_an_upper_bound():
    for requirement in all_requirements():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators in ({'>=', '<'}, {'=='}), str(requirement)


def test_every_requirement_of_the_package_is_pinned_in_both_stacks():
    for stack in ('openmmlab', 'onedl'):
        pins = read_pins(stack)
        for line in PROJECT['dependencies']:
            assert canonicalize_name(Requirement(line).name) in pins, (stack, line)


def test_pins_of_the_documentation_repeat_none_of_the_environment():
    assert not read_pins('docs').keys() & read_pins('openmmlab').keys()


def test_the_package_is_marked_as_typed():
    assert (ROOT / 'mae_plugin' / 'py.typed').is_file()
    assert 'Typing :: Typed' in PROJECT['classifiers']
