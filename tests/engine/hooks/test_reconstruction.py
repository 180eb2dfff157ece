"""Tests panels of the same images under the same masks, which leave training unchanged."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mae_plugin import reconstruct_image
from mae_plugin.engine import ReconstructionHook
from mae_plugin.engine.hooks.reconstruction import _evaluating
from mae_plugin.engine.loops.seeding import seeded
from mmengine.config import Config
from mmengine.visualization import Visualizer
from mmpretrain import get_model
from PIL import Image

from ...conftest import PRETRAIN, ROOT, write_jpegs
from ..loops.test_train import STEPS, assert_identical, train

HOOK = 'default_hooks.reconstruction'


def panels(work_dir) -> dict[str, np.ndarray]:
    files = sorted(work_dir.glob('*/vis_data/vis_image/*.png'))
    return {file.name: np.asarray(Image.open(file)) for file in files}


def dataset_of(folder, size: int = 32) -> dict:
    """Returns the recipe's test dataset with another folder and size."""
    config = Config.fromfile(ROOT / PRETRAIN).test_dataloader.dataset
    config.pipeline[0].scale = size
    return {**config, 'data_root': str(folder), 'data_prefix': ''}


def settings_of_test(folder, size: int = 32) -> dict:
    loader = dict(_delete_=True, dataset=dataset_of(folder, size))
    return dict(test_dataloader=loader, test_cfg=dict(_delete_=True), test_evaluator=[])


def test_panels_of_a_run(images, tmp_path):
    """Compares the last panel with images drawn from the last checkpoint, bit for bit."""
    write_jpegs(tmp_path / 'test', 5, seed=9)
    options = {f'{HOOK}.interval': 1, f'{HOOK}.num_images': 2, f'{HOOK}.mask_ratio': 0.5}
    options |= settings_of_test(tmp_path / 'test')
    losses, weights = train(images, tmp_path / 'with', interval=STEPS, **options)
    found = panels(tmp_path / 'with')
    assert list(found) == ['reconstruction_10.png', 'reconstruction_5.png']
    first, last = found['reconstruction_5.png'], found['reconstruction_10.png']
    assert first.shape == last.shape == (2 * 32 + 2, 4 * 32 + 3 * 2, 3)
    # Original and masked stay, the reconstruction changes.
    assert np.array_equal(first[:, : 2 * 34], last[:, : 2 * 34])
    assert not np.array_equal(first[:, 2 * 34 :], last[:, 2 * 34 :])

    config = Config.fromfile(next((tmp_path / 'with').glob('*/vis_data/config.py')))
    model = get_model(config, pretrained=str(tmp_path / 'with' / f'iter_{STEPS}.pth'))
    shown = [str(tmp_path / 'test' / name) for name in ('000.jpg', '002.jpg')]
    results = reconstruct_image(model, shown, mask_ratio=0.5, batch_size=2, seed=0)
    for i, result in enumerate(results):
        assert np.array_equal(last[34 * i : 34 * i + 32], result.panel())
    log = next((tmp_path / 'with').glob('*/*.log')).read_text()
    assert log.count('Reconstructed 2 images, loss ') == 2 and ' s per epoch.' in log

    without, same = train(images, tmp_path / 'without', **{f'{HOOK}.num_images': 0})
    assert panels(tmp_path / 'without') == {}
    assert losses == without
    assert_identical(weights, same)


@pytest.mark.parametrize('compiled', [False, True])
def test_mmengines_own_loop_is_left_alone_too(images, tmp_path, compiled):
    """Leaves the random numbers of mmengine unchanged, also with unusable test images."""
    options = {'train_cfg.type': 'EpochBasedTrainLoop', f'{HOOK}.interval': 1}
    if compiled:
        options |= {
            'default_hooks.compile.enabled': True,
            'default_hooks.compile.backend': 'aot_eager',
        }
    test = settings_of_test(images, size=30) if compiled else settings_of_test(tmp_path / 'nowhere')
    losses, weights = train(images, tmp_path / 'with', **options, **test)
    assert set(panels(tmp_path / 'with')) == {'reconstruction_5.png', 'reconstruction_10.png'}
    log = next((tmp_path / 'with').glob('*/*.log')).read_text()
    assert (
        log.count('Panels show training images, as those of the test dataset cannot be used: ') == 1
    )
    without, same = train(images, tmp_path / 'without', **{**options, f'{HOOK}.num_images': 0})
    assert losses == without
    assert_identical(weights, same)


def test_by_iteration(images, tmp_path):
    """Draws at every fourth iteration and the last one, on all backends of the visualizer."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Visualizer,
            'add_image',
            lambda self, name, image, step: drawn.append((name, step, image.shape)),
        )
        options = {f'{HOOK}.by_epoch': False, f'{HOOK}.interval': 4, f'{HOOK}.num_images': 3}
        train(images, tmp_path / 'whole', by_epoch=False, **options)
        assert drawn == [
            ('reconstruction', step, (3 * 34 - 2, 4 * 34 - 2, 3)) for step in (4, 8, 10)
        ]
        drawn.clear()
        # Another hook ends the training after its first step.
        options['custom_hooks'] = [dict(type='TimeLimitHook', minutes=1e-9)]
        train(images, tmp_path / 'ended', by_epoch=False, **options)
    assert [step for _, step, _ in drawn] == [1]


def test_other_models_get_no_panels(monkeypatch):
    """A model without pixel predictions: one log line states the reason, and training goes on."""
    lines = []
    monkeypatch.setattr(
        'mae_plugin.engine.hooks.reconstruction.print_log', lambda text, **_: lines.append(text)
    )
    # It has no visualizer, so drawing would fail.
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), epoch=0, max_epochs=1, iter=5)
    hook = ReconstructionHook()
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    hook.after_train_epoch(runner)
    assert len(lines) == 1 and lines[0].startswith('No panels are drawn: Linear ')


@pytest.mark.parametrize('wrong', [dict(interval=0), dict(num_images=-1)])
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match='must be at least 1'):
        ReconstructionHook(**wrong)


def test_modes_and_generators_come_back(build_tiny):
    model = build_tiny().train()
    model.backbone.layers[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), _evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before

    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(()).item()

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with seeded(5):
        inside = draw()
    assert draw() == expected
    with pytest.raises(KeyError), seeded(5):
        assert draw() == inside != expected
        raise KeyError
