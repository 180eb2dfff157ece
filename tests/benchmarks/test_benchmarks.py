"""Tests that benchmarks run, and that both implementations return the same kind of batch."""

import json
import sys

import torch

from benchmarks import data as loading

from ..conftest import write_jpegs


def test_loading(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, 'LARGE', (800, 600))
    write_jpegs(tmp_path / 'photographs', 3)
    figures = tmp_path / 'figures.json'
    arguments = [
        '--large',
        tmp_path / 'photographs',
        '--rounds',
        1,
        '--workers',
        1,
        '--json',
        figures,
    ]
    monkeypatch.setattr(sys, 'argv', ['data.py', *map(str, [tmp_path / 'photographs', *arguments])])
    threads = torch.get_num_threads()
    try:
        loading.main()
    finally:
        torch.set_num_threads(threads)
    written = json.loads(figures.read_text())
    for table in ('core', 'core, mosaics of 12 MP', 'core, photographs of 12 MP', '1 workers'):
        assert {'mmpretrain', 'mae_plugin'} <= set(written[table])
        assert all(rate > 0 for rates in written[table].values() for rate in rates)
    assert '3 photographs of 12 MP' in capsys.readouterr().out
    assert written['difference, photographs of 12 MP']['more_than_2'] <= 0.001
    stock, ours = (
        loading.dataset(kind, str(tmp_path / 'photographs'), pack=True)[0]
        for kind in ('stock', 'ours')
    )
    assert (
        stock['inputs'].shape == ours['inputs'].shape
        and stock['inputs'].dtype == ours['inputs'].dtype
    )
