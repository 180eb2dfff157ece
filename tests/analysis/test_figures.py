"""Layout of figures, and the data of curves."""

import json

import numpy as np
import pytest
import torch
from mae_plugin.analysis.reconstruct import Reconstruction
from mae_plugin.apis import draw_curves, draw_grid, draw_tokens, read_log, save_figure
from PIL import Image


def result(image: int, share: float, **changes) -> Reconstruction:
    """Returns a reconstruction with pictures of one color each: the number plus the kind."""
    pictures = [np.full((8, 16, 3), (50 * image, kind, 0), np.uint8) for kind in (10, 20, 30, 40)]
    return Reconstruction(
        *pictures, mask=(torch.arange(4) < 4 * share).float(), loss=1.0, **changes
    )


def shown(figure) -> list[list]:
    """Returns the colors of a figure's pictures by row, left to right; None for an empty place."""
    rows = figure.axes[0].get_subplotspec().get_gridspec().nrows
    colors = [
        axis.images[0].get_array()[0, 0].tolist()[:2] if axis.images else None
        for axis in figure.axes
    ]
    return [colors[i * len(colors) // rows : (i + 1) * len(colors) // rows] for i in range(rows)]


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_one_ratio():
    figure = draw_grid([[result(1, 0.75)], [result(2, 0.75)]])
    assert shown(figure) == [
        [[50, kind] for kind in (10, 20, 30, 40)],
        [[100, kind] for kind in (10, 20, 30, 40)],
    ]
    assert titles(figure) == ['original', 'masked', 'reconstruction', 'visible pasted']
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(4 * 16 / (2 * 8))


def test_several_ratios():
    """The original appears once, then the pictures of every ratio with the ratio as title."""
    rows = [[result(image, share) for share in (0.5, 0.75)] for image in (1, 2)]
    figure = draw_grid(rows, ('masked', 'reconstruction'))
    assert shown(figure)[1] == [[100, 10], [100, 20], [100, 30], None, [100, 20], [100, 30]]
    assert titles(figure) == [
        'original',
        '50% masked',
        'reconstruction',
        '75% masked',
        'reconstruction',
    ]


def test_images_side_by_side():
    """Each image has its original; the last row may be shorter."""
    figure = draw_grid([[result(1, 0.5), result(2, 0.5)], [result(3, 0.5)]], ('pasted',))
    assert shown(figure) == [
        [[50, 10], [50, 40], None, [100, 10], [100, 40]],
        [[150, 10], [150, 40], None, None, None],
    ]


def test_ground_truth_statistics_are_noted_on_the_picture():
    figure = draw_grid([[result(1, 0.5)], [result(2, 0.5, used_ground_truth_stats=True)]])
    note = ",\nhidden patches'\nown mean and std"
    assert titles(figure) == [
        'original',
        'masked',
        f'reconstruction{note}',
        f'visible pasted{note}',
    ]


def test_tokens():
    pictures = [np.full((16, 8, 3), i, np.uint8) for i in range(9)]
    colors = [np.full((4, 2, 3), 100 + i, np.uint8) for i in range(9)]
    figure = draw_tokens(pictures, colors)
    first = [[[j + i, j + i] for i in range(8)] for j in (0, 100)]
    assert shown(figure) == [*first, [[8, 8], *[None] * 7], [[108, 108], *[None] * 7]]


def test_saving(tmp_path):
    figure = draw_grid([[result(1, 0.5)]], width=1.0)
    save_figure(figure, tmp_path / 'new' / 'a.png')
    with Image.open(tmp_path / 'new' / 'a.png') as image:
        assert image.width == pytest.approx(4 * 300, abs=30)
        assert round(image.info['dpi'][0]) == 300
        assert image.convert('RGB').getpixel((150, image.height - 60)) == (50, 10, 0)
    save_figure(figure, tmp_path / 'a.pdf')
    with pytest.raises(ValueError, match=r'a\.pdf exists already'):
        save_figure(figure, tmp_path / 'a.pdf')
    with pytest.raises(ValueError, match=r'a\.txt is no name for a picture'):
        save_figure(figure, tmp_path / 'a.txt')


def write_run(folder, *starts) -> None:
    """Writes a log of ten steps from each start, and a validation after the fifth step."""
    for i, start in enumerate(starts):
        records = [dict(step=start + j, loss=100 * i + start + j, lr=0.1) for j in range(1, 11)]
        records.insert(5, {'step': 1, 'probe/knn_top1': 50.0 + i})
        file = folder / f'2026010{i}_000000' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text(''.join(json.dumps(record) + '\n' for record in records) + '{"unfinished')


def test_read_log(tmp_path):
    """A run resumed from step 7: later records win, and validations have a step of training."""
    write_run(tmp_path, 0, 7)
    records = read_log(tmp_path)
    losses = [(record['step'], record['loss']) for record in records if 'loss' in record]
    assert losses == [(i, i) for i in range(1, 8)] + [(i, 100 + i) for i in range(8, 18)]
    probes = [
        (record['step'], record['probe/knn_top1']) for record in records if 'loss' not in record
    ]
    assert probes == [(5, 50.0), (12, 51.0)]
    assert len(read_log(tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json')) == 11
    with pytest.raises(FileNotFoundError, match='nowhere holds no log'):
        read_log(tmp_path / 'nowhere')


def test_curves(tmp_path):
    write_run(tmp_path / 'one', 0)
    write_run(tmp_path / 'two', 0, 7)
    runs = {name: read_log(tmp_path / name) for name in ('one', 'two')}
    loss, probe = draw_curves(runs, ['loss', 'probe/knn_top1']).axes
    assert [line.get_label() for line in loss.lines] == ['one', 'two']
    assert loss.lines[1].get_xydata()[-1].tolist() == [17, 117]
    assert (loss.get_yscale(), probe.get_yscale()) == ('log', 'linear')
    figure = draw_curves(
        {'run': [dict(step=i, loss=loss, lr=loss / 1000) for i, loss in enumerate((0.9, 0.2))]}
    )
    figure.draw_without_rendering()
    marks = [
        label.get_text()
        for label in figure.axes[0].get_yticklabels(which='both')
        if label.get_text()
    ]
    assert (
        {'0.2', '0.3', '0.5', '0.7'}
        <= set(marks)
        <= {'0.1', '0.15', '0.2', '0.3', '0.5', '0.7', '1', '1.5'}
    )
    assert figure.axes[1].yaxis.get_offset_text().get_text().startswith('1e')
    assert probe.lines[1].get_xydata().tolist() == [[5, 50], [12, 51]]
    with pytest.raises(
        ValueError, match="no run has logged 'los'; there is loss, lr, probe/knn_top1"
    ):
        draw_curves(runs, ['los'])
