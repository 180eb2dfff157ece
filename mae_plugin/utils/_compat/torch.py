"""Private names of torch, written for torch 2.11.0 and 2.15.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

# Base class of all errors by which torch.compile fails (torch 2.11, 2.15).
CompileError = TorchDynamoException


def get_metadata(state_dict: object) -> dict[str, Any] | None:
    """Returns the notes of modules beside a state dict, None if it has no notes.

    ``nn.Module.state_dict`` stores them in ``_metadata`` (torch 2.11, 2.15).
    """
    return getattr(state_dict, '_metadata', None)


def set_metadata(state_dict: Any, metadata: Mapping[str, Any]) -> None:
    """Sets the notes of modules beside a state dict, which must be an ``OrderedDict``.

    ``nn.Module.load_state_dict`` reads them from ``_metadata`` (torch 2.11, 2.15).
    """
    state_dict._metadata = metadata


def copy_metadata(source: object, target: Any) -> None:
    """Copies the notes of modules beside one state dict to another one, if there are any."""
    metadata = get_metadata(source)
    if metadata is not None:
        set_metadata(target, metadata)


def run_load_hook_first(module: nn.Module, handle: Any) -> None:
    """Moves a load-state-dict pre-hook of a module before those registered earlier.

    Args:
        module: the module.
        handle: return value of ``module.register_load_state_dict_pre_hook``. torch keeps the hooks
            in ``_load_state_dict_pre_hooks``, an ``OrderedDict`` (torch 2.11, 2.15).
    """
    module._load_state_dict_pre_hooks.move_to_end(handle.id, last=False)


def can_use_cuda() -> bool:
    """Returns whether CUDA is initialized in this process and not inherited by a fork.

    ``torch.cuda._is_in_bad_fork`` is true in a forked child whose parent used CUDA (torch 2.11,
    2.15).
    """
    return torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()


def found_inf_tensors(
    scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer
) -> list[Tensor]:
    """Returns the tensors, one per device, by which a GradScaler decides to skip an update.

    They are 1 after ``unscale_`` found a non-finite gradient, and may be overwritten.
    ``GradScaler._found_inf_per_device`` returns them (torch 2.11, 2.15).
    """
    return list(scaler._found_inf_per_device(optimizer).values())


def skips_non_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Returns whether an optimizer's step reads its attributes ``grad_scale`` and ``found_inf``.

    Fused optimizers state this in ``_step_supports_amp_scaling`` (torch 2.11, 2.15).
    """
    return bool(getattr(optimizer, '_step_supports_amp_scaling', False))


def loader_workers(batches: Any) -> list[Any]:
    """Returns the worker processes of a DataLoader's iterator; empty without workers.

    ``_MultiProcessingDataLoaderIter`` keeps them in ``_workers`` (torch 2.11, 2.15).
    """
    return list(getattr(batches, '_workers', ()))


def kill_loader_workers(batches: Any) -> None:
    """Terminates the workers of a DataLoader's iterator without torch's shutdown.

    torch's shutdown takes locks that a killed worker may still hold, and would hang. With
    ``_shutdown`` set, torch does not begin it (torch 2.11, 2.15).
    """
    for worker in loader_workers(batches):
        batches._shutdown = True
        worker.terminate()
