"""Every private name of another package that is used here exists in the installed version."""

import importlib
import inspect
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import mmengine.dataset
import mmengine.model
import mmengine.optim
import mmengine.runner
import mmengine.visualization
import mmpretrain
import pytest
import torch
from mae_plugin.utils import _compat
from mae_plugin.utils._compat import mmengine as for_mmengine
from mae_plugin.utils._compat import mmpretrain as for_mmpretrain
from mae_plugin.utils._compat import torch as for_torch
from mmengine.hooks import CheckpointHook
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmpretrain.apis.base import BaseInferencer
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor, VisionTransformer
from mmpretrain.utils import dependency
from torch.utils.data import DataLoader, dataloader

MODULES = (for_torch, for_mmengine, for_mmpretrain)
RUNNER = mmengine.runner.Runner
LOOPS = ('_train_loop', '_val_loop', '_test_loop')

# Function or constant of the fence -> the private names that it uses, by their owners.
USED = {
    (for_torch, 'CompileError'): {
        importlib.import_module('torch._dynamo.exc'): ['TorchDynamoException']
    },
    (for_torch, 'get_metadata'): {torch.nn.Module.state_dict: ['_metadata']},
    (for_torch, 'set_metadata'): {torch.nn.Module.load_state_dict: ['_metadata']},
    (for_torch, 'copy_metadata'): {torch.nn.Module.state_dict: ['_metadata']},
    (for_torch, 'run_load_hook_first'): {torch.nn.Module: ['_load_state_dict_pre_hooks']},
    (for_torch, 'can_use_cuda'): {torch.cuda: ['_is_in_bad_fork']},
    (for_torch, 'found_inf_tensors'): {torch.amp.GradScaler: ['_found_inf_per_device']},
    (for_torch, 'skips_non_finite'): {
        torch.optim.AdamW: ['_step_supports_amp_scaling'],
        torch.optim.SGD: ['_step_supports_amp_scaling'],
    },
    (for_torch, 'loader_workers'): {dataloader._MultiProcessingDataLoaderIter: ['_workers']},
    (for_torch, 'kill_loader_workers'): {
        dataloader._MultiProcessingDataLoaderIter: ['_workers', '_shutdown']
    },
    (for_mmengine, 'run_forward'): {mmengine.model.MMDistributedDataParallel: ['_run_forward']},
    (for_mmengine, 'ParamScheduler'): {mmengine.optim: ['_ParamScheduler']},
    (for_mmengine, 'GLOBAL_STEP'): {mmengine.optim._ParamScheduler: ['_global_step']},
    (for_mmengine, 'SCHEDULER_STEPS'): {
        mmengine.optim._ParamScheduler: ['_global_step', 'last_step']
    },
    (for_mmengine, 'built_loop'): {RUNNER: LOOPS},
    (for_mmengine, 'has_loop'): {RUNNER: LOOPS},
    (for_mmengine, 'load_source'): {RUNNER: ['_load_from']},
    (for_mmengine, 'is_resuming'): {RUNNER: ['_resume']},
    (for_mmengine, 'has_loaded'): {RUNNER: ['_has_loaded']},
    (for_mmengine, 'set_resume_source'): {RUNNER: ['_load_from', '_resume']},
    (for_mmengine, 'set_train_dataset'): {RUNNER: ['_train_dataloader']},
    (for_mmengine, 'end_training_after'): {
        mmengine.runner.EpochBasedTrainLoop: ['_max_epochs'],
        mmengine.runner.IterBasedTrainLoop: ['_max_iters'],
    },
    (for_mmengine, 'loader_iterator'): {_InfiniteDataloaderIterator: ['_iterator']},
    (for_mmengine, 'accumulative_counts'): {mmengine.optim.OptimWrapper: ['_accumulative_counts']},
    (for_mmengine, 'visualizer_backends'): {mmengine.visualization.Visualizer: ['_vis_backends']},
    (for_mmengine, 'set_wrapper_classes'): {mmengine.dataset.ConcatDataset: ['_metainfo']},
    (for_mmpretrain, 'load_hub'): {ModelHub: ['_register_mmpretrain_models']},
    (for_mmpretrain, 'hub_models'): {ModelHub: ['_models_dict']},
    (for_mmpretrain, 'overriding_hub_models'): {ModelHub: ['_models_dict']},
    (for_mmpretrain, 'ensure_config_attribute'): {mmpretrain.get_model.__wrapped__: ['_config']},
    (for_mmpretrain, 'converts_channels'): {SelfSupDataPreprocessor: ['_channel_conversion']},
    (for_mmpretrain, 'normalizes'): {
        SelfSupDataPreprocessor: ['_enable_normalize'],
        ClsDataPreprocessor: ['_enable_normalize'],
    },
    (for_mmpretrain, 'switch_off_broken_multimodal'): {dependency: ['WITH_MULTIMODAL']},
}

# Protected names that our subclasses override or read, by the base class.
INHERITED = {
    BaseInferencer: ['_dispatch_kwargs', '_init_pipeline', '_inputs_to_list', '_get_chunk_data'],
    CheckpointHook: ['_save_best_checkpoint', '_save_checkpoint', '_save_checkpoint_with_step'],
    ClsDataPreprocessor: ['_enable_normalize', '_non_blocking'],
    VisionTransformer: ['_prepare_pos_embed'],
    mmengine.dataset.BaseDataset: [
        '_copy_without_annotation',
        '_get_unserialized_subset',
        '_metainfo',
    ],
    mmengine.optim.AmpOptimWrapper: ['_clip_grad', '_scale_update_param'],
    mmengine.optim._ParamScheduler: ['_get_value', '_global_step', '_last_value'],
    mmengine.runner.EpochBasedTrainLoop: [
        '_decide_current_val_interval',
        '_epoch',
        '_iter',
        '_max_epochs',
        '_max_iters',
    ],
    mmengine.runner.IterBasedTrainLoop: [
        '_decide_current_val_interval',
        '_epoch',
        '_iter',
        '_max_epochs',
        '_max_iters',
    ],
}


def check_name(owner: object, name: str, user: str) -> None:
    """Fails if an object has no attribute of that name and its source does not mention it."""
    if hasattr(owner, name):
        return
    sources = owner.__mro__ if isinstance(owner, type) else (owner,)
    texts = [inspect.getsource(source) for source in sources if source is not object]
    # Attributes of instances appear in the source of a class alone.
    if any(f'.{name}' in text or f"'{name}'" in text for text in texts):
        return
    module = inspect.getmodule(owner) or owner
    package = importlib.import_module(module.__name__.split('.')[0])
    pytest.fail(
        f'{package.__name__} {package.__version__} has no {name} in {owner.__name__}, which '
        f'{user} uses; write it for this version, or exclude the version in pyproject.toml'
    )


@pytest.mark.parametrize(
    ('module', 'user'), USED, ids=[f'{module.__name__[25:]}-{user}' for module, user in USED]
)
def test_private_names_exist(module, user):
    for owner, names in USED[module, user].items():
        for name in names:
            check_name(owner, name, f'{module.__name__}.{user}')


@pytest.mark.parametrize('owner', INHERITED, ids=lambda owner: owner.__name__)
def test_inherited_names_exist(owner):
    for name in INHERITED[owner]:
        check_name(owner, name, f'a subclass in mae_plugin of {owner.__name__}')


def test_a_missing_name_fails_with_a_sentence():
    with pytest.raises(pytest.fail.Exception) as error:
        check_name(mmengine.runner.Runner, '_gone', 'load_source')
    version = mmengine.__version__
    assert str(error.value).startswith(f'mmengine {version} has no _gone in Runner, which load_')


@pytest.mark.parametrize('module', MODULES, ids=lambda module: module.__name__)
def test_every_function_is_checked_and_states_its_version(module: ModuleType):
    own = {
        name
        for name, value in vars(module).items()
        if getattr(value, '__module__', '') == module.__name__ and not name.startswith('_')
    }
    checked = {user for owner, user in USED if owner is module}
    assert own <= checked and all(hasattr(module, name) for name in checked)
    assert module.__doc__.count('0.') or module.__doc__.count('.')
    for name in own - {'copy_metadata'}:
        text = inspect.getdoc(getattr(module, name))
        assert '(torch 2' in text or '(mmengine 0.10.7' in text or '(mmpretrain 1.2.0' in text, name


def test_the_fence_names_every_package():
    assert {path.stem for path in _compat_folder().glob('[a-z]*.py')} == {
        module.__name__.split('.')[-1] for module in MODULES
    }


def _compat_folder():
    return importlib.resources.files(_compat)


def test_metadata():
    weights = torch.nn.Linear(2, 1).state_dict()
    assert for_torch.get_metadata(weights)[''] == dict(version=1)
    assert for_torch.get_metadata(dict(weights)) is None
    copy = OrderedDict(weights)
    for_torch.copy_metadata({}, copy)
    assert for_torch.get_metadata(copy) is None
    for_torch.copy_metadata(weights, copy)
    assert for_torch.get_metadata(copy) == for_torch.get_metadata(weights)


def test_load_hooks_in_order():
    module, called = torch.nn.Linear(1, 1), []
    module.register_load_state_dict_pre_hook(lambda *_: called.append('first'))
    handle = module.register_load_state_dict_pre_hook(lambda *_: called.append('second'))
    for_torch.run_load_hook_first(module, handle)
    module.load_state_dict(module.state_dict())
    assert called == ['second', 'first']


def test_scaler():
    """Setting the tensors makes the scaler skip the update, as its own finding would."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler('cpu')
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    (found,) = for_torch.found_inf_tensors(scaler, optimizer)
    assert found.item() == 0
    found.fill_(1)
    scaler.step(optimizer)
    assert weight.item() == 1
    assert not for_torch.skips_non_finite(optimizer)
    assert for_torch.skips_non_finite(torch.optim.AdamW([weight], fused=True))


def test_loader_workers():
    batches = iter(DataLoader(range(8), num_workers=2))
    next(batches)
    workers = for_torch.loader_workers(batches)
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    for_torch.kill_loader_workers(batches)
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    assert for_torch.loader_workers(iter(DataLoader(range(2)))) == []
    endless = _InfiniteDataloaderIterator(DataLoader(range(2)))
    assert for_mmengine.loader_iterator(endless) is endless._iterator


def test_runner(tmp_path):
    """What the functions return for a Runner is what it was built with."""
    runner = RUNNER(
        model=torch.nn.Linear(1, 1),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=[], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0), accumulative_counts=4),
        load_from='a.pth',
        resume=True,
        experiment_name='compat',
    )
    assert for_mmengine.has_loop(runner, 'train') and not for_mmengine.has_loop(runner, 'val')
    assert for_mmengine.built_loop(runner, 'train') is None
    assert for_mmengine.load_source(runner) == 'a.pth' and for_mmengine.is_resuming(runner)
    assert not for_mmengine.has_loaded(runner)
    for_mmengine.set_resume_source(runner, None)
    assert for_mmengine.load_source(runner) is None and not for_mmengine.is_resuming(runner)
    for_mmengine.set_train_dataset(runner, list(range(6)))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert for_mmengine.accumulative_counts(runner.optim_wrapper) == 4
    loop = runner.train_loop
    assert len(loop.dataloader) == 6 and for_mmengine.built_loop(runner, 'train') is loop
    for_mmengine.end_training_after(loop, 1)
    assert loop.max_epochs == 1
    assert [type(b).__name__ for b in for_mmengine.visualizer_backends(runner.visualizer)] == [
        'LocalVisBackend'
    ]


def test_wrapper_classes():
    part = mmengine.dataset.BaseDataset(metainfo=dict(classes=['a']), lazy_init=True)
    wrapper = mmengine.dataset.ConcatDataset([part], lazy_init=True)
    for_mmengine.set_wrapper_classes(wrapper, ('b',))
    for_mmengine.set_wrapper_classes(part, ('b',))
    assert wrapper.metainfo['classes'] == ('b',) and part.metainfo['classes'] == ['a']


def test_preprocessors():
    both = dict(mean=[0.0] * 3, std=[1.0] * 3)
    assert for_mmpretrain.normalizes(SelfSupDataPreprocessor(**both))
    assert not for_mmpretrain.normalizes(ClsDataPreprocessor())
    assert for_mmpretrain.converts_channels(SelfSupDataPreprocessor(**both, to_rgb=True))
    assert not for_mmpretrain.converts_channels(SelfSupDataPreprocessor(**both))


def test_config_attribute():
    model, built = torch.nn.Linear(1, 1), SimpleNamespace(_config='config')
    for_mmpretrain.ensure_config_attribute(model)
    for_mmpretrain.ensure_config_attribute(built)
    assert model._config is None and built._config == 'config'


@pytest.mark.parametrize(('version', 'expected'), [('4.57.1', True), ('5.0.0rc1', False)])
def test_multimodal(monkeypatch, version, expected):
    """Only where transformers lacks what mmpretrain's multimodal models import."""
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    monkeypatch.setattr(for_mmpretrain.metadata, 'version', lambda _: version)
    for_mmpretrain.switch_off_broken_multimodal()
    assert dependency.WITH_MULTIMODAL is expected
