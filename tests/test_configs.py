"""What the recipes come to when they run: groups, rates and schedules against the official recipe's
numbers.
"""

import math
from pathlib import Path

import mmpretrain
import pytest
import torch
from mae_plugin.registry import asset_root
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain import models as theirs
from mmpretrain.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS

CONFIGS = asset_root() / 'configs' / 'mae'
PRETRAIN = CONFIGS / 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
FINETUNE = CONFIGS / 'benchmarks' / 'vit-base-p16_8xb128-coslr-100e_in1k.py'
MMPRETRAIN = Path(mmpretrain.__file__).parent / '.mim' / 'configs'


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def settings_by_parameter(config: Config, model: torch.nn.Module) -> dict[str, tuple[float, float]]:
    """Name of every trained parameter -> its learning rate and weight decay."""
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p]: (g['lr'], g['weight_decay'])
        for g in wrapper.optimizer.param_groups
        for p in g['params']
    }


def rates(config: Config, epoch_length: int, wanted: set[int]) -> dict[int, float]:
    """The learning rate at some iterations, from the config's scheduler stepped as the Runner steps
    it.
    """
    optimiser = torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr
    )
    scheduler = PARAM_SCHEDULERS.build(
        {**config.param_scheduler, 'end': config.train_cfg.max_epochs},
        default_args=dict(optimizer=optimiser, epoch_length=epoch_length),
    )
    found = {}
    for iteration in range(max(wanted) + 1):
        if iteration in wanted:
            found[iteration] = optimiser.param_groups[0]['lr']
        optimiser.step()
        scheduler.step()
    return found


def test_pretraining_groups():
    """Authors' code: decay 0.05 on all that is neither 1-D nor a bias, so on class and mask token
    too.
    """
    config = Config.fromfile(PRETRAIN)
    model = MODELS.build(config.model)
    settings = settings_by_parameter(config, model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == settings.keys()
    assert trained == {n for n, _ in model.named_parameters()} - {
        'backbone.pos_embed',
        'neck.decoder_pos_embed',
    }
    for name, parameter in model.named_parameters():
        if name in trained:
            decay = 0.0 if parameter.ndim == 1 or name.endswith('.bias') else 0.05
            assert settings[name] == (pytest.approx(2.4e-3), decay), name
    for name, decay in {
        'backbone.cls_token': 0.05,
        'neck.mask_token': 0.05,
        'backbone.patch_embed.projection.weight': 0.05,
        'backbone.patch_embed.projection.bias': 0,
        'backbone.layers.3.ln1.weight': 0,
        'backbone.layers.3.attn.qkv.weight': 0.05,
        'neck.decoder_pred.bias': 0,
    }.items():
        assert settings[name][1] == decay, name
    optimiser = config.optim_wrapper.optimizer
    assert (optimiser.type, tuple(optimiser.betas)) == ('AdamW', (0.9, 0.95))


def test_pretraining_schedule():
    """1,281,167 images make 312 steps of 4096: 12,480 of warm-up, 81,120 of cosine."""
    config = Config.fromfile(PRETRAIN)
    expected = {
        0: 0.0,
        1: 2.4e-3 / 12480,
        6240: 1.2e-3,
        12479: 2.4e-3 * 12479 / 12480,
        12480: 2.4e-3,
        32760: 2.4e-3 * (1 + math.sqrt(0.5)) / 2,
        53040: 1.2e-3,
        93599: 2.4e-3 * (1 - math.cos(math.pi / 81120)) / 2,
    }
    for iteration, rate in rates(config, 1281167 // 4096, set(expected)).items():
        assert rate == pytest.approx(expected[iteration], rel=1e-9, abs=1e-15), iteration
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=4096)


def test_pretraining_pipeline():
    config = Config.fromfile(PRETRAIN)
    assert config.train_cfg.max_epochs == 300
    assert (config.train_dataloader.batch_size, config.train_dataloader.drop_last) == (512, True)
    dataset = config.train_dataloader.dataset
    assert (dataset.type, dataset.data_prefix) == ('IndexedImages', 'train')
    assert [step.type for step in dataset.pipeline] == ['LoadRandomCrop', 'PackInputs']
    crop = TRANSFORMS.build(dataset.pipeline[0])
    assert (crop.scale, crop.crop_ratio_range, crop.aspect_ratio_range) == (
        (224, 224),
        (0.2, 1.0),
        (3 / 4, 4 / 3),
    )
    assert (crop.interpolation, crop.flip_prob, crop.on_error) == ('bicubic', 0.5, 'skip')
    assert config.model.head.norm_pix


def test_finetuning_groups():
    """Authors' code: rate 2e-3 * 0.65 ** (13 - layer), no decay on 1-D parameters, class token and
    positions.
    """
    config = Config.fromfile(FINETUNE)
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model)
    settings = settings_by_parameter(config, model)
    assert settings.keys() == {name for name, _ in model.named_parameters()}
    for name, (rate, decay) in {
        'backbone.cls_token': (7.394411782e-06, 0),
        'backbone.pos_embed': (7.394411782e-06, 0),
        'backbone.patch_embed.projection.weight': (7.394411782e-06, 0.05),
        'backbone.layers.0.attn.qkv.weight': (1.137601813e-05, 0.05),
        'backbone.layers.0.attn.qkv.bias': (1.137601813e-05, 0),
        'backbone.layers.5.ln2.weight': (9.804455781e-05, 0),
        'backbone.layers.11.ffn.layers.1.weight': (1.3e-3, 0.05),
        'backbone.ln2.weight': (2e-3, 0),
        'head.fc.weight': (2e-3, 0.05),
        'head.fc.bias': (2e-3, 0),
    }.items():
        assert settings[name] == (pytest.approx(rate, rel=1e-8), decay), name
    assert model.backbone.layers[11].attn.out_drop.drop_prob == pytest.approx(0.1)


def test_finetuning_schedule():
    """1,251 steps of 1024: 6,255 of warm-up, 118,845 of cosine to 1e-6 times each group's scale."""
    config = Config.fromfile(FINETUNE)
    expected = {0: 0.0, 1251: 4e-4, 6255: 2e-3, 65677: 1.000513211e-3, 125099: 1e-6 + 3.5e-13}
    for iteration, rate in rates(config, 1281167 // 1024, set(expected)).items():
        assert rate == pytest.approx(expected[iteration], rel=1e-6, abs=1e-15), iteration
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=1024)
    assert config.optim_wrapper.type == 'AutoAmpOptimWrapper'


def test_finetuning_pipelines():
    config = Config.fromfile(FINETUNE)
    assert config.train_cfg.max_epochs == 100
    pipeline = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    augment, erase = pipeline['RandAugment'], pipeline['RandomErasing']
    assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 9, 0.5)
    assert (erase.erase_prob, erase.mode, erase.fill_color[0]) == (0.25, 'rand', 103.53)
    crop = TRANSFORMS.build(pipeline['LoadRandomCrop'])
    assert (crop.crop_ratio_range, crop.flip_prob, crop.on_error) == ((0.08, 1.0), 0.5, 'skip')
    assert [step.type for step in config.val_dataloader.dataset.pipeline] == [
        'LoadCenterCrop',
        'PackInputs',
    ]
    centre = TRANSFORMS.build(config.val_dataloader.dataset.pipeline[0])
    assert (centre.scale, centre.crop_ratio, centre.interpolation) == (
        (224, 224),
        224 / 256,
        'bicubic',
    )
    assert centre.on_error == 'raise'
    assert [(a.type, a.alpha) for a in config.model.train_cfg.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]
    assert config.model.head.loss.label_smooth_val == 0.1


@pytest.mark.parametrize(
    ('recipe', 'layers', 'rate', 'expected', 'drop_path', 'batch', 'step_batch'),
    [
        (
            'vit-large-p16_8xb128-coslr-50e_in1k',
            24,
            4e-3,
            (3.010173833e-06, 4.013565110e-06, 3e-3),
            0.2,
            128,
            1024,
        ),
        (
            'vit-huge-p14_8xb128-coslr-50e_in1k',
            32,
            4e-3,
            (3.013572772e-07, 4.018097029e-07, 3e-3),
            0.3,
            128,
            1024,
        ),
        (
            'vit-huge-p14_32xb8-coslr-50e_in1k-448px',
            32,
            1e-3,
            (7.533931929e-08, 1.004524257e-07, 7.5e-4),
            0.3,
            8,
            256,
        ),
    ],
)
def test_finetuning_larger_models(recipe, layers, rate, expected, drop_path, batch, step_batch):
    """Rates of stem, first and last layer: 0.75 ** (layers + 1), 0.75 ** layers and 0.75 of the
    head's.
    """
    config = Config.fromfile(CONFIGS / 'benchmarks' / f'{recipe}.py')
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
    settings = settings_by_parameter(config, model)
    names = (
        'patch_embed.projection.weight',
        'layers.0.attn.qkv.weight',
        f'layers.{layers - 1}.attn.qkv.weight',
    )
    for name, value in zip(names, expected, strict=True):
        assert settings[f'backbone.{name}'] == (pytest.approx(value, rel=1e-6), 0.05), name
    assert settings['head.fc.weight'] == (pytest.approx(rate), 0.05)
    assert settings['backbone.pos_embed'][1] == settings['backbone.cls_token'][1] == 0
    assert model.backbone.layers[-1].attn.out_drop.drop_prob == pytest.approx(drop_path)
    assert (config.train_dataloader.batch_size, config.auto_scale_lr.base_batch_size) == (
        batch,
        step_batch,
    )
    assert config.train_cfg.max_epochs == 50
    # The floor is 1e-6 for the head, whatever the base rate, and the layer's scale times that
    # elsewhere.
    steps = 1281167 // step_batch
    ends = rates(config, steps, {0, 5 * steps, 50 * steps - 1})
    assert ends[0] == 0
    assert ends[5 * steps] == pytest.approx(rate)
    assert ends[50 * steps - 1] == pytest.approx(1e-6, rel=1e-4)


def test_448_px():
    """Above 224 px the authors crop nothing away; and the smaller recipe is left as it was."""
    for size, ratio, name in (
        (448, 1, '32xb8-coslr-50e_in1k-448px'),
        (224, 224 / 256, '8xb128-coslr-50e_in1k'),
    ):
        config = Config.fromfile(CONFIGS / 'benchmarks' / f'vit-huge-p14_{name}.py')
        assert config.train_dataloader.dataset.pipeline[0].scale == size
        assert [step.type for step in config.train_dataloader.dataset.pipeline[1:3]] == [
            'RandAugment',
            'RandomErasing',
        ]
        for loader in (config.val_dataloader, config.test_dataloader):
            crop = TRANSFORMS.build(loader.dataset.pipeline[0])
            assert (crop.scale, crop.crop_ratio) == ((size, size), ratio)


@pytest.mark.parametrize(('size', 'dim', 'layers'), [('base', 768, 12), ('large', 1024, 24)])
def test_linear_probe(size, dim, layers):
    """LARS at 6.4 for 16,384 images a step, no decay, the bias exempt from the adaptation, encoder
    frozen.
    """
    config = Config.fromfile(
        CONFIGS / 'benchmarks' / f'vit-{size}-p16_8xb2048-linear-coslr-90e_in1k.py'
    )
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {'head.layers.head.weight', 'head.layers.head.bias'}
    assert settings_by_parameter(config, model) == dict.fromkeys(trained, (6.4, 0.0))
    optimiser = build_optim_wrapper(model, config.optim_wrapper).optimizer
    exempt = {
        p.ndim: group.get('lars_exclude', False)
        for group in optimiser.param_groups
        for p in group['params']
    }
    assert (type(optimiser).__name__, optimiser.defaults['momentum'], exempt) == (
        'LARS',
        0.9,
        {1: True, 2: False},
    )
    assert (model.neck.bn.affine, model.neck.bn.eps, model.neck.bn.num_features) == (
        False,
        1e-6,
        dim,
    )
    assert (model.backbone.frozen_stages, model.backbone.out_type) == (layers, 'cls_token')
    assert (config.train_dataloader.batch_size, config.auto_scale_lr.base_batch_size) == (
        2048,
        16384,
    )
    pipeline = config.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline] == ['LoadRandomCrop', 'PackInputs']
    assert TRANSFORMS.build(pipeline[0]).interpolation == 'bicubic'
    # 78 steps an epoch: 780 of warm-up, 6,240 of cosine to 0.
    expected = {
        0: 0.0,
        390: 3.2,
        780: 6.4,
        3900: 3.2,
        7019: 6.4 * (1 - math.cos(math.pi / 6240)) / 2,
    }
    for iteration, rate in rates(config, 1281167 // 16384, set(expected)).items():
        assert rate == pytest.approx(expected[iteration], rel=1e-9, abs=1e-15), iteration


def test_every_config_names_the_plugin_and_shows_its_command():
    for path in CONFIGS.rglob('*.py'):
        config = Config.fromfile(path)
        if '_base_' not in path.parts:
            assert path.name in path.read_text().replace('\n', '')
            assert 'mae_plugin' in config.custom_imports.imports
            assert 'tools/train.py' in path.read_text().split('"""')[1]


# Parameters as mmpretrain's own model index has them.
@pytest.mark.parametrize(
    ('name', 'parameters'),
    [
        ('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k', 111907840),
        ('mae_vit-large-p16_8xb512-amp-coslr-400e_in1k', 329541888),
        ('mae_vit-huge-p14_8xb512-amp-coslr-1600e_in1k', 657074508),
    ],
)
def test_mmpretrains_own_configs_build_with_our_classes(name, parameters):
    config = Config.fromfile(MMPRETRAIN / 'mae' / f'{name}.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert type(model).__module__ == 'mae_plugin.models.mae'
    assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.device('meta'):
        reference = theirs.MAE(
            backbone=theirs.MAEViT(**without_type(config.model.backbone)),
            neck=theirs.MAEPretrainDecoder(**without_type(config.model.neck)),
        )
    shapes = {name: tensor.shape for name, tensor in reference.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


def without_type(config: dict) -> dict:
    return {key: value for key, value in config.items() if key != 'type'}


def test_mae_hivit_takes_a_step_as_in_mmpretrain():
    config = Config.fromfile(
        MMPRETRAIN / 'mae' / 'mae_hivit-base-p16_8xb512-amp-coslr-400e_in1k.py'
    )
    torch.manual_seed(0)
    ours = MODELS.build(config.model)
    reference = theirs.MAE(
        backbone=theirs.MAEHiViT(**without_type(config.model.backbone)),
        neck=theirs.MAEPretrainDecoder(**without_type(config.model.neck)),
        head=theirs.MAEPretrainHead(**without_type(config.model.head)),
    )
    reference.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 224, 224)
    torch.manual_seed(1)
    loss = ours.loss(images)['loss']
    torch.manual_seed(1)
    torch.testing.assert_close(loss, reference.loss(images, [])['loss'], rtol=1e-5, atol=0)
    loss.backward()
    assert ours.backbone.patch_embed.proj.weight.grad.any()
    reconstruction, mask = ours.reconstruct(images)
    assert reconstruction.shape == images.shape
    assert mask.sum(dim=1).tolist() == [147, 147]
    with pytest.raises(ValueError, match='MAEHiViT draws its own masks'):
        ours.loss(images, mask=torch.zeros(2, 196))


@pytest.mark.parametrize(
    ('config', 'kept'),
    [
        ('eva/eva-mae-style_vit-base-p16_16xb256-coslr-400e_in1k.py', 'MAEPretrainDecoder'),
        ('itpn/itpn-pixel_hivit-base-p16_8xb512-amp-coslr-800e_in1k.py', 'MAEPretrainHead'),
    ],
)
def test_other_algorithms_that_use_our_names_build(config, kept):
    config = Config.fromfile(MMPRETRAIN / config)
    # Its target generator fetches a teacher's weights from the network when it is built.
    config.model.pop('target_generator', None)
    model = MODELS.build(config.model)
    ours = [
        type(m).__name__ for m in model.children() if type(m).__module__.startswith('mae_plugin')
    ]
    assert kept in ours
