"""Figures for print: reconstructions in a grid, colors of patch tokens, curves of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..utils.atomic_files import staged
from .reconstruct import Reconstruction

DPI = 300
# Width of the gap between the groups of a row, in widths of a picture.
_GAP = 0.12


def draw_grid(
    rows: Sequence[Sequence[Reconstruction]],
    kinds: Sequence[str] = ('masked', 'reconstruction', 'pasted'),
    width: float = 1.1,
) -> Figure:
    """Draws reconstructions in rows and columns.

    Of neighboring results of the same image, only the first is preceded by the original. One image
    at several mask ratios is therefore a row as in the paper (figure 4): the original, then the
    pictures of each ratio.

    Args:
        rows: the reconstructions; the last row may be shorter than the others.
        kinds: pictures of a reconstruction that follow the original.
        width: width of a picture in inches.
    """
    # (position in the row, kind of picture) of each column; None for a gap.
    columns: list[tuple[int, str] | None] = []
    for i, result in enumerate(rows[0]):
        if i > 0:
            columns.append(None)
        if i == 0 or not np.array_equal(result.original, rows[0][i - 1].original):
            columns.append((i, 'original'))
        columns += [(i, kind) for kind in kinds]
    shares = [_GAP if column is None else 1 for column in columns]
    figure, axes = _panels(rows[0][0].original, len(rows), shares, width)
    one_ratio = len({result.mask.mean().item() for row in rows for result in row}) == 1
    for row, row_axes in zip(rows, axes, strict=True):
        for column, axis in zip(columns, row_axes, strict=True):
            if column is None or column[0] >= len(row):
                continue
            position, kind = column
            axis.imshow(getattr(row[position], kind), interpolation='nearest')
            if row is rows[0]:
                # The title is that of all rows.
                in_column = [other[position] for other in rows if position < len(other)]
                uses_truth = any(result.used_ground_truth_stats for result in in_column)
                title = _title(row[position], kind, one_ratio, uses_truth)
                axis.set_title(title, fontsize=7, pad=2)
    return figure


def _title(result: Reconstruction, kind: str, one_ratio: bool, uses_truth: bool) -> str:
    """Returns the title of a column, with a note if predictions use ground-truth statistics."""
    if kind == 'original':
        return kind
    if kind == 'masked':
        return kind if one_ratio else f'{result.mask.mean().item():.0%} masked'
    name = 'reconstruction' if kind == 'reconstruction' else 'visible pasted'
    return f"{name},\nhidden patches'\nown mean and std" if uses_truth else name


def draw_tokens(
    pictures: Sequence[np.ndarray], colors: Sequence[np.ndarray], width: float = 1.1
) -> Figure:
    """Draws images above the colors of their patch tokens, at most eight side by side.

    Args:
        pictures: images (H, W, 3).
        colors: colors of the patch tokens (h, w, 3) of each image.
        width: width of a picture in inches.
    """
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = _panels(pictures[0], 2 * rows, [1] * columns, width)
    for i, (picture, color) in enumerate(zip(pictures, colors, strict=True)):
        picture_height, picture_width = picture.shape[:2]
        row, column = i // columns * 2, i % columns
        axes[row, column].imshow(picture, interpolation='nearest')
        # The tokens cover the area of the picture.
        extent = (0, picture_width, picture_height, 0)
        axes[row + 1, column].imshow(color, interpolation='nearest', extent=extent)
    return figure


def _panels(
    picture: np.ndarray, rows: int, shares: Sequence[float], width: float
) -> tuple[Figure, np.ndarray]:
    """Returns a figure of frameless axes for pictures of one shape, with ``shares`` as widths."""
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
        runs: records by name of run, from :func:`~mae_plugin.analysis.logs.read_log`.
        keys: the quantities; losses that fall by more than a factor of three get a logarithmic
            scale.

    Raises:
        ValueError: if no run has logged one of the quantities.
    """
    figure = Figure(figsize=(7, 3.2 * len(keys)), dpi=DPI, layout='constrained')
    for axis, key in zip(figure.subplots(len(keys), squeeze=False)[:, 0], keys, strict=True):
        values = []
        for name, records in runs.items():
            points = [(record['step'], record[key]) for record in records if key in record]
            if not points:
                continue
            # Single points of a short run would not be visible without markers.
            marker = '.' if len(points) < 40 else None
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1, marker=marker)
            values += [value for _, value in points]
        if not values:
            known = {name for records in runs.values() for record in records for name in record}
            names = ', '.join(sorted(known - {'step'})) or 'nothing'
            raise ValueError(f'no run has logged {key!r}; there is {names}')
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
    """Writes a figure with its titles and labels, in the format of the file's extension.

    Raises:
        ValueError: if the extension is unknown, or the file exists and ``force`` is not set.
    """
    path = Path(path)
    if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise ValueError(f'{path} is no name for a picture; let it end in .png, .pdf or .svg')
    with staged(path, force) as part:
        figure.savefig(part, bbox_inches='tight', pad_inches=0.03)
