"""Tables and pictures of docs/results.md, made from the logs of pretrain_vs_scratch only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mae_plugin.apis import ReconstructionInferencer, draw_curves, save_figure
from matplotlib.figure import Figure

TOP1, LINEAR, KNN = 'accuracy/top1', 'probe/linear_top1', 'probe/knn_top1'


class Log:
    """Log of one run."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.run, self.notes, self.epochs = content['run'], content['notes'], content['epochs']
        self.name = self.run['name']

    def last(self, key: str) -> float | None:
        """Returns the last logged value of a quantity, or None."""
        return next((of[key] for of in reversed(self.epochs) if key in of), None)

    @property
    def length(self) -> int:
        """Number of trained epochs."""
        return self.epochs[-1]['epoch']


def read_logs(folder: Path) -> dict[str, Log]:
    """Reads the logs of a folder, by name of the run."""
    return {path.stem: Log(path) for path in sorted(folder.glob('*.json'))}


def mean_and_spread(values: Sequence[float]) -> str:
    """Formats mean and standard deviation: ``71.2 ± 0.4``, or the mean of a single value."""
    middle = f'{statistics.mean(values):.1f}'
    return f'{middle} ± {statistics.stdev(values):.1f}' if len(values) > 1 else middle


def row(what: str, key: str, logs: dict[str, Log], *runs: Sequence[str]) -> str | None:
    """Formats a row of a table: the result of the last run of each sequence, and the total cost.

    Args:
        what: name of the row.
        key: quantity of the last column.
        logs: all logs.
        *runs: one sequence of runs per seed, each starting from the weights of the previous one.

    Returns:
        The row in Markdown, or None if no sequence is complete.
    """
    found = [
        [logs[name] for name in names] for names in runs if all(name in logs for name in names)
    ]
    if not found:
        return None
    epochs = ' + '.join(str(log.length) for log in found[0])
    images = sum(log.notes['images'] for log in found[0])
    minutes = statistics.median(sum(log.notes['seconds'] for log in logs) / 60 for logs in found)
    accuracy = mean_and_spread([logs[-1].last(key) for logs in found])
    return f'| {what} | {epochs} | {images:,} | {minutes:.1f} | {len(found)} | {accuracy} |'


def headline(logs: dict[str, Log]) -> list[str]:
    """Returns the rows of the main comparison."""
    seeds = sorted(
        name.removeprefix('scratch-') for name in logs if name.removeprefix('scratch-').isdigit()
    )
    rows = [
        row('from scratch', TOP1, logs, *([f'scratch-{seed}'] for seed in seeds)),
        row(
            'MAE, fine-tuned',
            TOP1,
            logs,
            *([f'pretrain-{seed}', f'finetune-{seed}'] for seed in seeds),
        ),
        row(
            "mmpretrain's MAE, fine-tuned",
            TOP1,
            logs,
            ['pretrain-mmpretrain', 'finetune-mmpretrain'],
        ),
    ]
    for what, key in (('linear', LINEAR), ('k-NN', KNN)):
        rows += [
            row(f'MAE, {what}', key, logs, *([f'pretrain-{seed}'] for seed in seeds)),
            row(f"mmpretrain's MAE, {what}", key, logs, ['pretrain-mmpretrain']),
            row(f'untrained, {what}', key, logs, ['untrained']),
        ]
    return rows


def gain(logs: dict[str, Log]) -> str | None:
    """Returns a sentence with the gain of pre-training, paired by seed."""
    seeds = [
        name.removeprefix('finetune-') for name in logs if name.removeprefix('finetune-').isdigit()
    ]
    pairs = [(f'finetune-{seed}', f'scratch-{seed}') for seed in seeds if f'scratch-{seed}' in logs]
    if not pairs:
        return None
    gains = [logs[tuned].last(TOP1) - logs[scratch].last(TOP1) for tuned, scratch in pairs]
    spread = mean_and_spread(gains)
    return f'MAE pre-training helps here by {spread} points over training from scratch.'


def print_tables(folder: Path) -> None:
    """Prints all tables, with the runs that are complete."""
    logs = read_logs(folder)
    if not logs:
        print(f'{folder} holds no logs yet')
        return
    notes = next(iter(logs.values())).notes
    print(
        ', '.join(
            f'{name} {value}'
            for name, value in notes.items()
            if name not in ('steps', 'seconds', 'images')
        )
    )
    tenth = 'fine-tuned on 10 % of the labels'
    print_table('top-1 %', headline(logs))
    sentence = gain(logs)
    if sentence:
        print(f'\n{sentence}')
    others = [
        row('half the learning rate', TOP1, logs, ['scratch-rate-0.5']),
        row('half the epochs', TOP1, logs, ['scratch-half']),
        row('half the epochs, half the learning rate', TOP1, logs, ['scratch-half-rate-0.5']),
        row('half the epochs, twice the learning rate', TOP1, logs, ['scratch-half-rate-2']),
    ]
    if any(others):
        others.insert(0, row('as above, first seed', TOP1, logs, ['scratch-0']))
    print_table('from scratch, other schedules', others)
    rows = [row('100 %, from scratch', TOP1, logs, ['scratch-0'])]
    rows += [row('100 %, MAE, fine-tuned', TOP1, logs, ['pretrain-0', 'finetune-0'])]
    for percent in (10, 1):
        rows += [
            row(f'{percent} %, from scratch', TOP1, logs, [f'scratch-labels-{percent}']),
            row(
                f'{percent} %, MAE, fine-tuned',
                TOP1,
                logs,
                ['pretrain-0', f'finetune-labels-{percent}'],
            ),
        ]
    print_table('by share of the labels', rows)
    names = {f'mask-{percent}': f'{percent} % masked' for percent in (25, 50, 75, 90)}
    names['raw'] = '75 % masked, raw pixels as targets'
    rows = []
    for what, key, last in (
        (tenth, TOP1, 'finetune'),
        ('linear', LINEAR, None),
        ('k-NN', KNN, None),
    ):
        for name, label in names.items():
            runs = [f'pretrain-{name}'] + ([f'{last}-{name}'] if last else [])
            rows.append(row(f'{label}, {what}', key, logs, runs))
    print_table('short pre-training', rows)


def print_table(title: str, rows: Sequence[str | None]) -> None:
    """Prints a table in Markdown, without the rows that are missing."""
    if not any(rows):
        return
    print(
        f'\n### {title}\n\n| | epochs | images seen | minutes | seeds | top-1 % '
        '|\n|---|---|---|---|---|---|'
    )
    for line in filter(None, rows):
        print(line)


def draw_curves_of(folder: Path, pictures: Path, force: bool) -> None:
    """Draws losses and probes of pre-training, and accuracies of training with labels, by epoch."""
    logs = read_logs(folder)
    plots = {
        'pretraining': (('pretrain',), ('loss', LINEAR, KNN)),
        'accuracy': (('finetune', 'scratch'), (TOP1,)),
    }
    for name, (kinds, keys) in plots.items():
        chosen = [
            f'{kind}-{which}'
            for kind in kinds
            for which in (0, 1, 2, 'mmpretrain')
            if f'{kind}-{which}' in logs
        ]
        if not chosen:
            continue
        records = {run: [dict(of, step=of['epoch']) for of in logs[run].epochs] for run in chosen}
        figure = draw_curves(records, keys)
        for axis in figure.axes:
            axis.set_xlabel('epoch')
        save_figure(figure, pictures / f'{name}.png', force)


def draw_epochs(run: Path, images: Sequence[str], path: Path, force: bool) -> None:
    """Draws reconstructions by the checkpoints of a run: a row per image, a column per epoch.

    The masks are the same for all checkpoints.
    """
    checkpoints = sorted(run.glob('epoch_*.pth'), key=lambda path: int(path.stem.partition('_')[2]))
    columns = {}
    for checkpoint in checkpoints:
        results = ReconstructionInferencer(str(run / 'config.py'), str(checkpoint))(
            list(images), seed=0
        )
        columns.setdefault('original', [result.original for result in results])
        columns.setdefault('masked', [result.masked for result in results])
        columns[checkpoint.stem.replace('_', ' ')] = [result.pasted for result in results]
    figure = Figure(figsize=(1.1 * len(columns), 1.1 * len(images)), dpi=200)
    edges = dict(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
    axes = figure.subplots(len(images), len(columns), squeeze=False, gridspec_kw=edges)
    for (title, pictures), of_title in zip(columns.items(), axes.T, strict=True):
        of_title[0].set_title(title, fontsize=7, pad=2)
        for axis, picture in zip(of_title, pictures, strict=True):
            axis.imshow(picture, interpolation='nearest')
            axis.axis('off')
    save_figure(figure, path, force)
