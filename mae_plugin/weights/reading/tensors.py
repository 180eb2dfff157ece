"""Builds tensors from arguments in a pickle, within the bytes that the file has for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .values import Name

# A tensor's number of elements and each position in it have to fit into 64 bits.
_MAX_EXTENT = 2**60


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes of one or more tensors.

    Attributes:
        content: (bytes,), uint8.
        dtype: of the elements; uint8 for a storage of no type.
        limit: number of bytes that a tensor on it may have; a tensor with strides of 0 can have
            more than the storage.
    """

    content: Tensor
    dtype: torch.dtype
    limit: int


def _tensor(
    storage: Storage, offset: int, size: tuple, stride: tuple, dtype: torch.dtype | None = None
) -> Tensor:
    """Builds a tensor as a view of a storage, as ``torch._utils._rebuild_tensor``."""
    if type(storage) is not Storage:
        raise ValueError('a tensor in it has no storage')
    dtype = dtype or storage.dtype
    elements, rest = divmod(storage.content.numel(), dtype.itemsize)
    last = _last_index(size, stride, offset)
    if rest or last >= elements:
        raise ValueError('a tensor in it reaches beyond its storage')
    if math.prod(size) * dtype.itemsize > storage.limit:
        raise ValueError('a tensor in it has more elements than the file has bytes')
    return storage.content.view(dtype).as_strided(size, stride, offset)


def _last_index(size: tuple, stride: tuple, offset: int = 0) -> int:
    """Returns the last position in its storage of a tensor, -1 for an empty tensor."""
    are_tuples = type(size) in (tuple, torch.Size) and type(stride) is tuple
    if not are_tuples or len(size) != len(stride):
        raise ValueError('the shape of a tensor in it is not a tuple')
    if len(size) > 32 or not all(
        type(number) is int and 0 <= number < _MAX_EXTENT for number in (*size, *stride, offset)
    ):
        raise ValueError('the shape of a tensor in it is impossible')
    last = offset + sum(
        max(length - 1, 0) * step for length, step in zip(size, stride, strict=True)
    )
    if last >= _MAX_EXTENT or math.prod(max(length, 1) for length in size) >= _MAX_EXTENT:
        raise ValueError('the shape of a tensor in it is impossible')
    return last if 0 not in size else -1


def _tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None) -> Tensor:
    """Builds a tensor, as ``torch._utils._rebuild_tensor_v2``."""
    if hooks or metadata:
        raise ValueError('a tensor in it has hooks, or is a conjugate or negative view')
    return _tensor(storage, offset, size, stride)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    """Builds a tensor whose dtype is not the storage's, as ``torch._utils._rebuild_tensor_v3``."""
    if hooks or metadata:
        raise ValueError('a tensor in it has hooks, or is a conjugate or negative view')
    # Only a storage of bools has bytes that are all 0 or 1.
    if type(dtype) is not torch.dtype or dtype is torch.bool:
        raise ValueError('the data type of a tensor in it is not known')
    return _tensor(storage, offset, size, stride, dtype)


def _meta_tensor(dtype, size, stride, requires_grad) -> Tensor:
    """Builds a tensor without content, as it was saved on the meta device."""
    _last_index(size, stride)
    if type(dtype) is not torch.dtype:
        raise ValueError('the data type of a tensor in it is not known')
    return torch.empty_strided(size, stride, dtype=dtype, device='meta')


def _parameter(data, requires_grad, hooks, state=None) -> Tensor:
    """Builds the tensor of a parameter."""
    if type(data) is not Tensor or hooks:
        raise ValueError('a parameter in it is not a tensor, or has hooks')
    return data


def _tensor_with_attributes(function, kind, arguments, state) -> Tensor:
    """Builds a tensor or parameter that was saved with attributes, which are left out."""
    if not (
        type(function) is type(kind) is Name
        and function.path in _TENSORS
        and kind.path in _TENSOR_TYPES
    ):
        raise ValueError('a tensor in it is of a subclass')
    return _TENSORS[function.path](*arguments)


def _refuses(kind: str) -> Callable:
    """Returns a function that refuses tensors of another kind than dense ones."""

    def refuse(*_: Any) -> None:
        raise ValueError(f'it holds a {kind} tensor, where dense ones belong')

    return refuse


_TENSORS: dict[str, Callable] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_meta_tensor_no_storage': _meta_tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
}
_TENSOR_TYPES = (
    'torch.Tensor',
    'torch._tensor.Tensor',
    'torch.nn.parameter.Parameter',
    'torch.nn.parameter.Buffer',
)
_REFUSED = {
    'torch._utils._rebuild_sparse_tensor': 'sparse',
    'torch._utils._rebuild_sparse_csr_tensor': 'sparse',
    'torch._utils._rebuild_qtensor': 'quantized',
    'torch._utils._rebuild_nested_tensor': 'nested',
}


_DTYPES = {
    f'torch.{name}': getattr(torch, name)
    for name in (
        *('float64', 'float32', 'float16', 'bfloat16', 'complex128', 'complex64', 'bool'),
        *('int64', 'int32', 'int16', 'int8', 'uint8', 'uint16', 'uint32', 'uint64'),
        *('float8_e4m3fn', 'float8_e4m3fnuz', 'float8_e5m2', 'float8_e5m2fnuz', 'float8_e8m0fnu'),
    )
    if hasattr(torch, name)
}
STORAGES = {
    f'torch.{package}{name}Storage': dtype
    for package in ('', 'cuda.')
    for name, dtype in dict(
        Double=torch.float64,
        Float=torch.float32,
        Half=torch.float16,
        BFloat16=torch.bfloat16,
        Long=torch.int64,
        Int=torch.int32,
        Short=torch.int16,
        Char=torch.int8,
        Byte=torch.uint8,
        Bool=torch.bool,
        ComplexDouble=torch.complex128,
        ComplexFloat=torch.complex64,
    ).items()
} | {'torch.storage.UntypedStorage': torch.uint8}
"""The dtypes of storages by their names in a pickle; uint8 for storages without a dtype."""


def _size(lengths: Any) -> torch.Size:
    """Builds a shape."""
    if type(lengths) not in (tuple, list) or not all(type(length) is int for length in lengths):
        raise ValueError('a shape in it is not made of integers')
    return torch.Size(lengths)


def _device(kind: Any, index: Any = None) -> torch.device:
    """Builds a device."""
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise ValueError('a device in it is not a string')
    return torch.device(kind) if index is None else torch.device(kind, index)


TENSOR_MAKERS: dict[str, Callable | torch.dtype | None] = {
    **_TENSORS,
    'torch._tensor._rebuild_from_type_v2': _tensor_with_attributes,
    **{path: _refuses(kind) for path, kind in _REFUSED.items()},
    **dict.fromkeys((*_TENSOR_TYPES, *STORAGES)),
    **_DTYPES,
    'torch.Size': _size,
    'torch.device': _device,
}
"""By torch's names in a pickle, as in :data:`.constructors.MAKERS`."""
