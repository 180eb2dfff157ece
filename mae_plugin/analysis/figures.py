"""Figures to print: reconstructions in a grid, patch tokens in colour, curves of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..utils.atomic_files import staged
from .reconstruct import Reconstruction

DPI = 300
_APART = 0.12


def draw_grid(
    rows: Sequence[Sequence[Reconstruction]],
    kinds: Sequence[str] = ('masked', 'reconstruction', 'pasted'),
    width: float = 1.1,
) -> Figure:
    """Draws reconstructions in rows and columns.

    The original stands before the first of neighbours that show the same picture, so one image at
    several mask ratios is a row as in the paper (figure 4): the original, then the pictures of each
    ratio.

    Args:
        rows: the reconstructions; the last row may be shorter than the others.
        kinds: which pictures of a reconstruction follow the original.
        width: of a picture, in inches.
    """
    columns: list[tuple[int, str] | None] = []
    for i, result in enumerate(rows[0]):
        is_new = i == 0 or not np.array_equal(result.original, rows[0][i - 1].original)
        columns += [None] * (i > 0) + [(i, 'original')] * is_new + [(i, kind) for kind in kinds]
    shares = [1 if column else _APART for column in columns]
    figure, axes = _panels(rows[0][0].original, len(rows), shares, width)
    one_ratio = len({result.mask.mean().item() for row in rows for result in row}) == 1
    for row, row_axes in zip(rows, axes, strict=True):
        for column, axis in zip(columns, row_axes, strict=True):
            if column and column[0] < len(row):
                result, kind = row[column[0]], column[1]
                axis.imshow(getattr(result, kind), interpolation='nearest')
                if row is rows[0]:
                    looked_up = any(
                        row[column[0]].used_ground_truth_stats
                        for row in rows
                        if column[0] < len(row)
                    )
                    axis.set_title(_title(result, kind, one_ratio, looked_up), fontsize=7, pad=2)
    return figure


def _title(result: Reconstruction, kind: str, one_ratio: bool, looked_up: bool) -> str:
    if kind == 'original':
        return kind
    if kind == 'masked':
        return kind if one_ratio else f'{result.mask.mean().item():.0%} masked'
    name = 'reconstruction' if kind == 'reconstruction' else 'visible pasted'
    return f"{name},\nhidden patches'\nown mean and std" if looked_up else name


def draw_tokens(
    pictures: Sequence[np.ndarray], colours: Sequence[np.ndarray], width: float = 1.1
) -> Figure:
    """Draws images (H, W, 3) above the colours of their patch tokens (h, w, 3), at most eight side
    by side.
    """
    across = min(8, len(pictures))
    down = -(-len(pictures) // across)
    figure, axes = _panels(pictures[0], 2 * down, [1] * across, width)
    for i, (picture, colour) in enumerate(zip(pictures, colours, strict=True)):
        height, wide = picture.shape[:2]
        axes[i // across * 2, i % across].imshow(picture, interpolation='nearest')
        axes[i // across * 2 + 1, i % across].imshow(
            colour, interpolation='nearest', extent=(0, wide, height, 0)
        )
    return figure


def _panels(
    picture: np.ndarray, rows: int, shares: Sequence[float], width: float
) -> tuple[Figure, np.ndarray]:
    """A figure of axes without frames that fit pictures of this shape; ``shares`` are the columns'
    widths.
    """
    ratio = picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(sum(shares) * width, rows * ratio * width), dpi=DPI)
    edges = dict(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
    axes = figure.subplots(rows, len(shares), squeeze=False, width_ratios=shares, gridspec_kw=edges)
    for axis in axes.flat:
        axis.axis('off')
    return figure, axes


def draw_curves(
    runs: Mapping[str, Sequence[Mapping[str, float]]], keys: Sequence[str] = ('loss', 'lr')
) -> Figure:
    """Draws quantities over the steps of one or several runs, one plot for each quantity.

    Args:
        runs: records by name of run, as :func:`~mae_plugin.analysis.logs.read_log` gives them.
        keys: which quantities; losses that fall by more than a factor of three get a logarithmic
            scale.
    """
    figure = Figure(figsize=(7, 3.2 * len(keys)), dpi=DPI, layout='constrained')
    for axis, key in zip(figure.subplots(len(keys), squeeze=False)[:, 0], keys, strict=True):
        values = []
        for name, records in runs.items():
            points = [(record['step'], record[key]) for record in records if key in record]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    label=name,
                    linewidth=1,
                    marker='.' if len(points) < 40 else None,
                )
                values += [value for _, value in points]
        if not values:
            known = sorted(
                {name for records in runs.values() for record in records for name in record}
                - {'step'}
            )
            raise ValueError(f'no run has logged {key!r}; there is {", ".join(known) or "nothing"}')
        if 'loss' in key and min(values) > 0 and max(values) > 3 * min(values):
            axis.set_yscale('log')
            # Plain numbers, and enough of them: a loss stays within one or two powers of ten.
            marks = (1, 1.5, 2, 3, 5, 7) if max(values) < 30 * min(values) else (1, 2, 5)
            axis.yaxis.set_major_locator(LogLocator(subs=marks))
            axis.yaxis.set_major_formatter('{x:g}')
            axis.yaxis.set_minor_formatter(NullFormatter())
        else:
            axis.ticklabel_format(axis='y', scilimits=(-2, 4))
        axis.set(xlabel='step', ylabel=key)
        axis.grid(alpha=0.3, which='both')
        if len(runs) > 1:
            axis.legend(fontsize=8)
    return figure


def save_figure(figure: Figure, path: str | Path, force: bool = False) -> None:
    """Writes a figure with all that stands around it, in the format that the name ends in.

    Raises:
        ValueError: for another ending, or if there is something already and ``force`` is not set.
    """
    path = Path(path)
    if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise ValueError(f'{path} is no name for a picture; let it end in .png, .pdf or .svg')
    with staged(path, force) as unfinished:
        figure.savefig(unfinished, bbox_inches='tight', pad_inches=0.03)
