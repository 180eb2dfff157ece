"""Models beyond the memory of one GPU: torch's FSDP2 in the place of DDP."""

from __future__ import annotations

import torch
from mmengine.dist import broadcast
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..utils._compat.mmengine import run_forward


class FullyShardedModel(nn.Module):
    """Every process holds a share of weights, gradients and optimiser state
    (``torch.distributed.fsdp.fully_shard``).

    ``model_wrapper_cfg=dict(type='FullyShardedModel')`` in a config, or as ``--cfg-options``. Each
    transformer layer is gathered when it is needed. Checkpoints hold whole tensors, as without
    sharding, so that runs resume with or without it and on any number of processes, and everything
    that reads a checkpoint reads these.

    Weights are initialised, or loaded where the model's ``init_cfg`` says so, before they are
    split.

    Args:
        module: the model.
        **options: more arguments of ``fully_shard``, such as ``reshard_after_forward=False``.
    """

    def __init__(self, module: nn.Module, **options) -> None:
        super().__init__()
        self.module = module
        module.init_weights()
        # The Runner does the same once more, and shards cannot be drawn or sent as whole tensors
        # are.
        module.init_weights = lambda: None
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data)
        device = next(module.parameters()).device.type
        options['mesh'] = init_device_mesh(device, (torch.distributed.get_world_size(),))
        for layer in module.modules():
            if isinstance(layer, TransformerEncoderLayer):
                fully_shard(layer, **options)
        fully_shard(module, **options)
        module.register_state_dict_post_hook(_gather)
        for part in module.modules():
            part.register_load_state_dict_pre_hook(_distribute)

    def forward(self, *args, **kwargs) -> object:
        """The model's."""
        output = self.module(*args, **kwargs)
        if not torch.is_grad_enabled():
            # Without a backward pass, torch leaves all weights whole until the next step.
            self.module.reshard()
        return output

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """One step; while gradients are accumulated they are not sent."""
        self.module.set_requires_gradient_sync(optim_wrapper.should_sync())
        return MMDistributedDataParallel.train_step(self, data, optim_wrapper)

    detect_anomalous_params = False
    _run_forward = run_forward

    def val_step(self, data: dict | tuple | list) -> list:
        """Predictions; afterwards all weights are shares again."""
        predictions = self.module.val_step(data)
        self.module.reshard()
        return predictions

    test_step = val_step


def save_whole_tensors(optimizer: torch.optim.Optimizer) -> None:
    """Lets an optimiser of sharded weights save and load whole tensors, as that of whole weights
    does.
    """
    parameters = [p for group in optimizer.param_groups for p in group['params']]

    def gather(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
        state = {i: {k: _whole(v) for k, v in of.items()} for i, of in state_dict['state'].items()}
        return {**state_dict, 'state': state}

    def distribute(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
        state = {
            i: {k: _shard_like(v, parameters[i]) for k, v in of.items()}
            for i, of in state_dict['state'].items()
        }
        return {**state_dict, 'state': state}

    if any(isinstance(p, DTensor) for p in parameters):
        optimizer.register_state_dict_post_hook(gather)
        optimizer.register_load_state_dict_pre_hook(distribute)


def send_shards(runner: Runner, *args, save_optimizer: bool = True, **kwargs) -> None:
    """What the other processes do while the first one runs ``runner.save_checkpoint``, which
    collects their shards.
    """
    runner.model.module.state_dict()
    if save_optimizer:
        runner.optim_wrapper.state_dict()


def _gather(module: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    for key, value in state_dict.items():
        state_dict[key] = _whole(value)


def _distribute(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in state_dict:
            state_dict[prefix + name] = _shard_like(state_dict[prefix + name], parameter)


def _whole(value: object) -> object:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _shard_like(value: object, parameter: Tensor) -> object:
    """The part of a whole tensor that belongs here, for a tensor of a sharded parameter's shape."""
    if (
        not isinstance(value, Tensor)
        or not isinstance(parameter, DTensor)
        or value.shape != parameter.shape
    ):
        return value
    # Every process has read the whole checkpoint, so nothing needs to be sent.
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
