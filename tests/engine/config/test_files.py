"""Tests finding and reading configs, and errors that name the broken file."""

import pytest
from mae_plugin.engine.config.files import find_config, merge_options, read_config
from mmengine.config import Config

from ...conftest import PRETRAIN, ROOT

NAME = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'


def test_paths_and_names():
    assert find_config(str(ROOT / PRETRAIN)) == ROOT / PRETRAIN
    assert (
        find_config(NAME).read_text()
        == find_config(f'{NAME}.py').read_text()
        == (ROOT / PRETRAIN).read_text()
    )
    assert find_config('resnet18_8xb32_in1k').name == 'resnet18_8xb32_in1k.py'


def test_what_is_no_config(tmp_path):
    (tmp_path / 'epoch_1.pth').touch()
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(
        ValueError, match=r'epoch_1.pth holds weights and is not a config; a config ends in \.py'
    ):
        find_config(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(ValueError, match=r'notes.txt is not a config'):
        find_config(str(tmp_path / 'notes.txt'))
    with pytest.raises(ValueError, match='is a folder'):
        find_config(str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=f'there is no config {NAME[:-1]}; did you mean {NAME}'
    ):
        find_config(NAME[:-1])


def test_an_error_is_said_with_its_file(tmp_path):
    """Names the broken base: the error named no file, or a temporary one."""
    base, top, wrong = (tmp_path / f'{name}.py' for name in ('base', 'top', 'wrong'))
    base.write_text('a = 1\nb = (\n')
    top.write_text("_base_ = './base.py'\n")
    wrong.write_text('a = undefined\n')
    for file in (base, top):
        with pytest.raises(ValueError, match=rf'^{base} has a syntax error in line 2: '):
            read_config(file)
    with pytest.raises(
        ValueError, match=rf"^the config {wrong} cannot be read: NameError: name 'undefined'"
    ):
        read_config(wrong)


def test_options_through_what_has_no_parts():
    cfg = Config(dict(hooks=[dict(a=1)], number=3))
    merge_options(cfg, {'hooks.0.a': 2})
    assert cfg.hooks[0].a == 2
    for key in ('hooks.5.a', 'hooks.x.a', 'number.part'):
        with pytest.raises(ValueError, match=rf'^cannot set {key}=1: '):
            merge_options(cfg, {key: 1})
