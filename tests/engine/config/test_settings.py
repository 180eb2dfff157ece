"""Tests that every setting is checked against its class before anything is built."""

from pathlib import Path

import mmpretrain
import pytest
from mae_plugin.engine.config.settings import check_settings
from mae_plugin.engine.config.signatures import arguments_of, kinds_of
from mae_plugin.registry import asset_root
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...conftest import FINETUNE, LINEAR, PRETRAIN, ROOT

PROBED = 'configs/mae/small_data/mae_vit-mini-p8_1xb128-coslr-20e_64px.py'


@pytest.fixture(scope='module')
def configs() -> dict[str, Config]:
    return {name: Config.fromfile(ROOT / name) for name in (PRETRAIN, FINETUNE, LINEAR, PROBED)}


@pytest.mark.parametrize(
    ('config', 'setting', 'value', 'message'),
    [
        # Names, in all that a config configures.
        (
            PRETRAIN,
            'train_dataloader.batchsize',
            8,
            'no setting batchsize.*did you mean batch_size',
        ),
        (
            PRETRAIN,
            'train_dataloader.dataset.data_rot',
            'x',
            'IndexedImages takes none.*did you mean data_root',
        ),
        (
            PRETRAIN,
            'train_dataloader.dataset.pipeline.0.scal',
            64,
            'dataset.pipeline.0 has no.*did you mean scale',
        ),
        (PRETRAIN, 'train_dataloader.sampler.shufle', True, 'did you mean shuffle'),
        (
            PRETRAIN,
            'model.backbone.mask_ration',
            0.5,
            'model.backbone has no.*did you mean mask_ratio',
        ),
        (PRETRAIN, 'model.neck.decoder_dept', 2, 'did you mean decoder_depth'),
        (FINETUNE, 'model.head.num_class', 5, 'did you mean num_classes'),
        (FINETUNE, 'model.head.loss.label_smoth_val', 0.1, 'did you mean label_smooth_val'),
        (PRETRAIN, 'model.bacbone', {}, 'did you mean backbone'),
        (PRETRAIN, 'optim_wrapper.lr', 1e-3, 'did you mean optim_wrapper.optimizer.lr'),
        (PRETRAIN, 'optim_wrapper.optimizer.weight_decy', 0.1, 'did you mean weight_decay'),
        (PRETRAIN, 'optim_wrapper.clip_grads', dict(max_norm=1), 'did you mean clip_grad'),
        (PRETRAIN, 'optim_wrapper.paramwise_cfg.flat_decay', 0.0, 'did you mean flat_decay_mult'),
        (PRETRAIN, 'param_scheduler.warm_up', 5, 'WarmupCosineLR takes none.*did you mean warmup'),
        (PRETRAIN, 'train_cfg.epochs', 5, 'did you mean max_epochs'),
        (PROBED, 'val_cfg.bank_sizes', 5, 'ProbeLoop takes none.*did you mean bank_size'),
        (FINETUNE, 'val_evaluator.topks', 5, 'did you mean topk'),
        (
            FINETUNE,
            'test_evaluator',
            [dict(type='Accuracy', topks=5)],
            r'test_evaluator\.0 has no.*topk',
        ),
        (PRETRAIN, 'default_hooks.checkpoint.intervall', 5, 'did you mean interval'),
        # These reach Runner.save_checkpoint, at the first checkpoint.
        (PRETRAIN, 'default_hooks.checkpoint.max_keep_ckpt', 5, 'did you mean max_keep_ckpts'),
        (PRETRAIN, 'default_hooks.timer.intervall', 5, 'default_hooks.timer has no'),
        (
            PRETRAIN,
            'custom_hooks',
            [dict(type='TimeLimitHook', minuts=5)],
            r'custom_hooks\.0.*did you mean minutes',
        ),
        (PRETRAIN, 'visualizer.vis_backends.0.savedir', 'x', 'did you mean save_dir'),
        (PRETRAIN, 'randomness.sed', 5, 'did you mean seed'),
        (PRETRAIN, 'auto_scale_lr.base_batchsize', 5, 'did you mean base_batch_size'),
        (PRETRAIN, 'env_cfg', dict(cudnn_benchmarks=True), 'did you mean cudnn_benchmark'),
        # Types and architectures.
        (
            PRETRAIN,
            'model.backbone.type',
            'MAEVit',
            r'model\.backbone\.type=MAEVit is not.*did you mean MAEViT',
        ),
        (PRETRAIN, 'train_dataloader.dataset.type', 'IndexdImages', 'did you mean IndexedImages'),
        (PRETRAIN, 'optim_wrapper.optimizer.type', 'AdmW', 'did you mean AdamW'),
        (PRETRAIN, 'custom_hooks', [dict(type='NoSuchThing')], 'NoSuchThing is not registered'),
        (PRETRAIN, 'model.backbone.arch', 'bsae', 'arch=bsae is not one of.*did you mean base'),
        (
            PRETRAIN,
            'train_dataloader',
            5,
            'must be a dict of settings, such as train_dataloader.batch_size=64',
        ),
        # Numbers.
        (PRETRAIN, 'train_dataloader.batch_size', 0, 'batch_size=0 must be at least 1'),
        (PRETRAIN, 'train_dataloader.batch_size', 2.5, 'batch_size=2.5 must be a whole number'),
        (PRETRAIN, 'train_dataloader.batch_size', 'many', "batch_size='many' must be a number"),
        (PRETRAIN, 'train_dataloader.num_workers', -1, 'num_workers=-1 must not be negative'),
        (PRETRAIN, 'train_cfg.max_epochs', 0, 'max_epochs=0 must be at least 1'),
        (PRETRAIN, 'train_cfg.max_epochs', 'ten', "max_epochs='ten' must be a number"),
        (PROBED, 'train_cfg.val_interval', 0, 'val_interval=0 must be at least 1'),
        (PRETRAIN, 'optim_wrapper.optimizer.lr', -1e-3, 'lr=-0.001 must not be negative'),
        (PRETRAIN, 'optim_wrapper.optimizer.lr', 'fast', "lr='fast' must be a number"),
        (PRETRAIN, 'optim_wrapper.optimizer.lr', float('inf'), 'lr=inf must be a finite number'),
        (
            PRETRAIN,
            'optim_wrapper.accumulative_counts',
            0,
            'accumulative_counts=0 must be at least 1',
        ),
        (PRETRAIN, 'default_hooks.checkpoint.interval', 'x', "interval='x' must be a number"),
        (PRETRAIN, 'model.backbone.patch_size', 0, 'patch_size=0 must be at least 1'),
        (PRETRAIN, 'model.backbone.img_size', (224, 0), r'img_size=\(224, 0\) must be at least 1'),
        (FINETUNE, 'model.backbone.drop_path_rate', 2, 'drop_path_rate=2 must be between 0 and 1'),
        (PRETRAIN, 'randomness.seed', -1, 'seed=-1 must be between 0 and'),
        # Kinds of values: these were TypeErrors and AttributeErrors.
        (PRETRAIN, 'train_dataloader.sampler.shuffle', 'no', "shuffle='no' must be True or False"),
        (PRETRAIN, 'model.head.norm_pix', 'maybe', "norm_pix='maybe' must be True or False"),
        (PRETRAIN, 'model.backbone.arch', 5, 'arch=5 must be a text or a dict'),
        (PRETRAIN, 'model.backbone', 5, 'model.backbone=5 must be a dict of settings with a type'),
        (
            PRETRAIN,
            'model.head.loss',
            'L2',
            "model.head.loss='L2' must be a dict of settings with a type",
        ),
        (PRETRAIN, 'train_dataloader.dataset', 'x', "dataset='x' must be a dict"),
        (PRETRAIN, 'train_dataloader.dataset.pipeline', 5, 'pipeline=5 must be'),
        (
            PRETRAIN,
            'train_dataloader.dataset.data_prefix',
            5,
            'data_prefix=5 must be a text or a dict',
        ),
        (PRETRAIN, 'train_dataloader.dataset.extensions', 5, 'extensions=5 must be a list'),
        (
            PRETRAIN,
            'train_dataloader.collate_fn',
            dict(type='foo'),
            'collate_fn.type=foo is not registered',
        ),
        (
            PRETRAIN,
            'optim_wrapper.optimizer',
            'Adam',
            "optimizer='Adam' must be a dict of settings with a type",
        ),
        (PRETRAIN, 'param_scheduler', 5, 'param_scheduler=5 must be a dict'),
        (PRETRAIN, 'default_hooks.checkpoint', 5, 'default_hooks.checkpoint=5 must be a dict'),
        (PRETRAIN, 'custom_hooks', 5, 'custom_hooks=5 must be'),
        (PROBED, 'val_cfg.bank', 5, 'val_cfg.bank=5 must be a dict'),
        (PROBED, 'val_evaluator', 5, 'val_evaluator=5 must be'),
        (PRETRAIN, 'visualizer', 5, 'visualizer=5 must be a dict'),
        (PRETRAIN, 'randomness.seed', 'x', "seed='x' must be a number"),
        (PRETRAIN, 'resume', 'maybe', "resume='maybe' must be True or False"),
        (PRETRAIN, 'load_from', 5, 'load_from=5 must be a text'),
        (PRETRAIN, 'log_level', 'LOUD', 'log_level=LOUD is not one of DEBUG, INFO'),
    ],
)
def test_wrong_settings(configs, config, setting, value, message):
    """These raised bare Python errors, some at the first checkpoint."""
    cfg = Config(configs[config].to_dict())
    cfg.merge_from_dict({setting: value})
    with pytest.raises(ValueError, match=message):
        check_settings(cfg)


@pytest.mark.parametrize(
    'name', sorted(path.stem for path in (asset_root() / 'configs').rglob('mae_vit-mini*.py'))
)
def test_our_small_configs_pass(name):
    (file,) = (asset_root() / 'configs').rglob(f'{name}.py')
    check_settings(Config.fromfile(file))


def test_keyword_arguments_are_followed():
    """Follows ``**kwargs`` to the parent's constructor, or to the function that a hook calls."""

    class Parent:
        def __init__(self, a: int, b: float = 0.0) -> None: ...

    class Passes(Parent):
        def __init__(self, c: bool = False, **kwargs) -> None:
            super().__init__(a=1, **kwargs)

    class Keeps(Parent):
        def __init__(self, **kwargs) -> None:
            self.kwargs = kwargs

    # a is given by the constructor itself, so a second one would be an error.
    assert arguments_of(Passes) == dict(b=float, c=bool)
    assert arguments_of(Keeps) is None
    assert {'save_best', 'rule', 'meta'} <= set(arguments_of(CheckpointHook))
    assert 'priority' not in arguments_of(CheckpointHook)
    assert kinds_of(int | None) == kinds_of(float) == {'number'}
    assert kinds_of(int | tuple[int, int]) == {'number', 'list'}
    assert kinds_of(str | dict) == {'text', 'dict'}
    assert kinds_of(Runner) is None
    assert kinds_of(int | Runner) is None


@pytest.mark.slow
def test_no_working_config_is_refused():
    """Refuses of mmpretrain's own configs only those with types that are not registered."""
    refused, passed = [], 0
    for file in sorted(Path(mmpretrain.__file__).parent.joinpath('.mim/configs').rglob('*.py')):
        if '_base_' in file.parts:
            continue
        try:
            cfg = Config.fromfile(file)
        # Some need other packages.
        except Exception:
            continue
        try:
            check_settings(cfg)
            passed += 1
        except ValueError as error:
            refused.append(str(error))
    assert passed > 400
    assert [messages for messages in refused if 'is not registered' not in messages] == []
