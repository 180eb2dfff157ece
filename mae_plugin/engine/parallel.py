"""Parallel training: a wrapper for sharded models, and functions that work with every wrapper.

A wrapper declares its capabilities as class attributes and methods, and the functions below read
them. A wrapper without these attributes, such as DDP, and a model without a wrapper get the
defaults. Adding a wrapper takes a class here and its name in ``engine/__init__.py``.

=========================  =======  ==============================================================
``compiles_step``          True     ``torch.compile`` can compile the step of the model inside.
``keeps_whole_weights``    True     Every rank holds whole weights between two steps.
``take_part_in_saving``    absent   The part of ranks other than the first in saving a checkpoint.
=========================  =======  ==============================================================
"""

from __future__ import annotations

from functools import partial

import torch
from mmengine.dist import broadcast, is_main_process
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..utils._compat.mmengine import run_forward


def compiles_step(model: nn.Module) -> bool:
    """Returns whether ``torch.compile`` can compile the step of a possibly wrapped model."""
    return getattr(model, 'compiles_step', True)


def keeps_whole_weights(model: nn.Module) -> bool:
    """Returns whether every rank holds whole weights of a possibly wrapped model."""
    return getattr(model, 'keeps_whole_weights', True)


def save_on_all_ranks(runner: Runner) -> None:
    """Makes all ranks take part in saving checkpoints, if the wrapper requires it.

    The checkpoint hook calls ``runner.save_checkpoint`` on all ranks, and mmengine's method returns
    at once on all but the first.
    """
    take_part = getattr(runner.model, 'take_part_in_saving', None)
    if take_part is not None and not is_main_process():
        runner.save_checkpoint = partial(take_part, runner)


def save_whole_tensors(optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimizer save and load whole tensors, also for sharded parameters."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]

    def gather(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
        """Gathers the tensors of a state dict that is about to be saved."""
        state = {}
        for i, values in state_dict['state'].items():
            state[i] = {name: _gather(value) for name, value in values.items()}
        return {**state_dict, 'state': state}

    def shard(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
        """Shards the tensors of a state dict that is about to be loaded."""
        # torch numbers the states by the order of the parameters.
        state = {}
        for i, values in state_dict['state'].items():
            state[i] = {name: _shard_like(value, parameters[i]) for name, value in values.items()}
        return {**state_dict, 'state': state}

    # Without sharding, torch's own state dicts hold whole tensors already.
    if any(isinstance(p, DTensor) for p in parameters):
        optimizer.register_state_dict_post_hook(gather)
        optimizer.register_load_state_dict_pre_hook(shard)


class FullyShardedModel(nn.Module):
    """Shards weights, gradients and optimizer state over all ranks with torch's FSDP2.

    Set it by ``model_wrapper_cfg=dict(type='FullyShardedModel')`` in a config or with
    ``--cfg-options``. Each transformer layer is gathered when it is needed. Checkpoints hold whole
    tensors, as without sharding. Runs therefore resume with or without it, on any number of ranks,
    and every reader of checkpoints can read them.

    Weights are initialized, or loaded as the model's ``init_cfg`` states, before they are sharded.

    Args:
        module: the model.
        **options: further arguments of ``fully_shard``, such as ``reshard_after_forward=False``.
    """

    compiles_step = False
    keeps_whole_weights = False

    def __init__(self, module: nn.Module, **options) -> None:
        super().__init__()
        self.module = module
        module.init_weights()
        # The Runner initializes the weights once more, which does not work with shards.
        module.init_weights = lambda: None
        # All ranks start from the weights of the first one, as with DDP.
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data)
        device = next(module.parameters()).device.type
        options['mesh'] = init_device_mesh(device, (torch.distributed.get_world_size(),))
        # The layers come first: the last call shards what they leave.
        for layer in module.modules():
            if isinstance(layer, TransformerEncoderLayer):
                fully_shard(layer, **options)
        fully_shard(module, **options)
        # Checkpoints, hooks and tools read state dicts, and all of them get whole tensors.
        module.register_state_dict_post_hook(_gather_state_dict)
        for part in module.modules():
            part.register_load_state_dict_pre_hook(_shard_state_dict)

    def forward(self, *args, **kwargs) -> object:
        """Calls the model."""
        output = self.module(*args, **kwargs)
        if not torch.is_grad_enabled():
            # Without a backward pass, torch keeps the weights gathered until the next step.
            self.module.reshard()
        return output

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Runs one training step; gradients are reduced only in the last accumulated step."""
        self.module.set_requires_gradient_sync(optim_wrapper.should_sync())
        return MMDistributedDataParallel.train_step(self, data, optim_wrapper)

    # `MMDistributedDataParallel.train_step` reads these two.
    detect_anomalous_params = False
    _run_forward = run_forward

    def val_step(self, data: dict | tuple | list) -> list:
        """Returns the model's predictions, and shards the weights again."""
        predictions = self.module.val_step(data)
        self.module.reshard()
        return predictions

    test_step = val_step

    @staticmethod
    def take_part_in_saving(
        runner: Runner, *args: object, save_optimizer: bool = True, **kwargs: object
    ) -> None:
        """Sends shards to the first rank, in place of ``runner.save_checkpoint``.

        Gathering is collective: every rank reads the same state dicts in the same order.
        """
        runner.model.module.state_dict()
        if save_optimizer:
            runner.optim_wrapper.state_dict()


def _gather_state_dict(module: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    """Gathers all tensors of a state dict."""
    for key, value in state_dict.items():
        state_dict[key] = _gather(value)


def _shard_state_dict(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """Shards whole tensors of a state dict like the parameters of a module."""
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in state_dict:
            state_dict[prefix + name] = _shard_like(state_dict[prefix + name], parameter)


def _gather(value: object) -> object:
    """Returns the whole tensor of a sharded one; other values are returned as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _shard_like(value: object, parameter: Tensor) -> object:
    """Returns this rank's shard of a whole tensor of a sharded parameter's shape."""
    if not isinstance(value, Tensor) or not isinstance(parameter, DTensor):
        return value
    # The number of steps in an optimizer's state is a scalar.
    if value.shape != parameter.shape:
        return value
    # Every rank has read the whole checkpoint, so nothing needs to be sent.
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
