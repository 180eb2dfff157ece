"""Tests the comparison of pre-training with training from scratch: plan, logs, and one run."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS

from benchmarks import pretrain_vs_scratch, pretrain_vs_scratch_tables

from ..conftest import ROOT, write_jpegs

LABELS = {'10': Path('tenth.txt'), '1': Path('hundredth.txt')}


@pytest.mark.parametrize('size', pretrain_vs_scratch.SIZES.values(), ids=pretrain_vs_scratch.SIZES)
def test_runs_start_from_runs_before_them(size):
    runs = pretrain_vs_scratch.plan(size, 3, LABELS)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for i, one in enumerate(runs):
        assert one.start is None or one.start in names[:i]
        config = pretrain_vs_scratch._config(one.config)
        config.merge_from_dict(one.options)
        if one.name.startswith('scratch'):
            assert config.model.backbone.init_cfg is None


@pytest.mark.parametrize('size', pretrain_vs_scratch.SIZES.values(), ids=pretrain_vs_scratch.SIZES)
def test_the_baseline_is_the_same_model(size):
    ours = pretrain_vs_scratch._config(size.pretrain)
    theirs = Config(dict(ours))
    theirs.merge_from_dict(pretrain_vs_scratch._mmpretrain_options(size))
    built = MODELS.build(theirs.model)
    for part in (built, built.backbone, built.neck, built.head):
        assert type(part).__module__.startswith('mmpretrain.')
    shapes, wanted = (
        {key: tuple(value.shape) for key, value in model.state_dict().items()}
        for model in (built, MODELS.build(ours.model))
    )
    assert shapes == wanted


def test_labels_are_the_same_share_of_every_class(tmp_path):
    write_jpegs(tmp_path / 'train/a', 20)
    write_jpegs(tmp_path / 'train/b', 40)
    lists = pretrain_vs_scratch.choose_labels(tmp_path, tmp_path)
    for percent, wanted in {'10': {'a': 2, 'b': 4}, '1': {'a': 1, 'b': 1}}.items():
        lines = [line.split() for line in lists[percent].read_text().splitlines()]
        assert {name: sum(label == name for _, label in lines) for name in 'ab'} == wanted
        assert all(path.split('/')[-2] == label for path, label in lines)
        assert len({path for path, _ in lines}) == len(lines)


def test_log_of_a_run():
    records = [
        dict(epoch=1, step=10, loss=3.0, lr=0.1, time=0.5),
        dict(epoch=1, step=14, loss=2.0, lr=0.2, time=1.0),
        {'accuracy/top1': 40.0, 'step': 14},
        dict(epoch=2, step=24, loss=1.5, lr=0.1, time=0.5),
        {'accuracy/top1': 50.0, 'step': 24},
    ]
    kept = json.loads(
        pretrain_vs_scratch._compact(pretrain_vs_scratch.Run('scratch-0', 'recipe'), 8, records)
    )
    assert kept['notes']['images'] == 24 * 8 and kept['notes']['steps'] == 24
    assert kept['notes']['seconds'] == 10 * 0.5 + 4 * 1.0 + 10 * 0.5
    assert kept['epochs'] == [
        {'epoch': 1, 'loss': 2.0, 'lr': 0.2, 'accuracy/top1': 40.0},
        {'epoch': 2, 'loss': 1.5, 'lr': 0.1, 'accuracy/top1': 50.0},
    ]


def test_tables_and_curves(tmp_path, capsys):
    def log(name, top1, images=1000, seconds=60):
        epochs = [
            {'epoch': 1, 'loss': 1.0},
            {'epoch': 4, 'loss': 0.5, 'accuracy/top1': top1, 'probe/knn_top1': top1},
        ]
        epochs[1]['probe/linear_top1'] = top1 + 1
        notes = dict(device='a device', steps=1, images=images, seconds=seconds)
        (tmp_path / f'{name}.json').write_text(
            json.dumps(dict(run=dict(name=name), notes=notes, epochs=epochs))
        )

    for seed, (tuned, scratch) in enumerate([(75, 70), (76, 69), (77, 68)]):
        log(f'pretrain-{seed}', 50 + seed)
        log(f'finetune-{seed}', tuned)
        log(f'scratch-{seed}', scratch, images=3000)
    pretrain_vs_scratch_tables.print_tables(tmp_path)
    printed = capsys.readouterr().out
    # Gains of 5, 7 and 9: mean 7, standard deviation 2.
    assert 'helps here by 7.0 ± 2.0 points' in printed
    assert '| from scratch | 4 | 3,000 | 1.0 | 3 | 69.0 ± 1.0 |' in printed
    assert '| MAE, fine-tuned | 4 + 4 | 2,000 | 2.0 | 3 | 76.0 ± 1.0 |' in printed
    assert '| MAE, linear | 4 | 1,000 | 1.0 | 3 | 52.0 ± 1.0 |' in printed
    assert 'untrained' not in printed, 'a missing run has no row'
    pretrain_vs_scratch_tables.draw_curves_of(tmp_path, tmp_path / 'pictures', force=False)
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {
        'pretraining.png',
        'accuracy.png',
    }


def test_the_page_agrees_with_the_logs(capsys):
    pretrain_vs_scratch_tables.print_tables(ROOT / 'docs/results/mini')
    printed = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(('| ', 'MAE'))
    ]
    page = (ROOT / 'docs/results.md').read_text()
    assert len(printed) > 20
    for line in printed:
        assert line in page
    assert (
        next(line for line in printed if line.startswith('MAE')) in (ROOT / 'README.md').read_text()
    )


@pytest.mark.slow
def test_one_run_by_the_command(tmp_path, monkeypatch, capsys):
    def printed(*arguments):
        monkeypatch.setattr(sys, 'argv', ['pretrain_vs_scratch.py', *map(str, arguments)])
        pretrain_vs_scratch.main()
        return capsys.readouterr().out.strip()

    for part in ('train', 'val'):
        for label in ('a', 'b'):
            write_jpegs(tmp_path / 'data' / part / label, 12, seed=ord(label))
    arguments = (
        tmp_path / 'data',
        '--out',
        tmp_path / 'out',
        '--size',
        'mini',
        '--only',
        'untrained',
    )
    tables = printed(*arguments)
    assert '| untrained, k-NN | 1 |' in tables
    (log,) = (tmp_path / 'out/mini/logs').iterdir()
    kept = json.loads(log.read_text())
    assert kept['notes']['steps'] == 1
    # A run with a log is not repeated, and tables are made from logs only.
    shutil.rmtree(tmp_path / 'out/mini/untrained')
    assert printed(*arguments) == tables == printed('--tables', log.parent)
    with pytest.raises(SystemExit, match='is no dataset'):
        printed(tmp_path / 'nowhere')
