"""What the names in checkpoints stand for: functions that check their arguments and make plain values of them.

The names are those in checkpoints of mmengine's Runner, of the MAE authors' training code, timm and Hugging Face, as
torch and numpy wrote and write them. Parameters become tensors; a HistoryBuffer and an ``argparse.Namespace`` become
dicts.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pickled import Name, RefusedName, Unfinished, checked_key

_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
_STATISTICS = ('min', 'max', 'current', 'mean')
# A tensor's number of elements and each position in it have to fit into 64 bits.
_MAX_EXTENT = 2**60


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes of one or more tensors.

    Attributes:
        content: (bytes,), uint8.
        dtype: of the elements; uint8 for a storage of no type.
        limit: bytes that a tensor on it may have; with strides of 0 it can have more than the storage.
    """

    content: Tensor
    dtype: torch.dtype
    limit: int


# --- tensors


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, dtype: torch.dtype | None = None) -> Tensor:
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
    """The last position in its storage of a tensor, -1 for an empty tensor."""
    if type(size) not in (tuple, torch.Size) or type(stride) is not tuple or len(size) != len(stride):
        raise ValueError('the shape of a tensor in it is not a tuple')
    if len(size) > 32 or not all(
        type(number) is int and 0 <= number < _MAX_EXTENT for number in (*size, *stride, offset)
    ):
        raise ValueError('the shape of a tensor in it is impossible')
    last = offset + sum(max(length - 1, 0) * step for length, step in zip(size, stride, strict=True))
    if last >= _MAX_EXTENT or math.prod(max(length, 1) for length in size) >= _MAX_EXTENT:
        raise ValueError('the shape of a tensor in it is impossible')
    return last if 0 not in size else -1


def _tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None) -> Tensor:
    if hooks or metadata:
        raise ValueError('a tensor in it has hooks, or is a conjugate or negative view')
    return _tensor(storage, offset, size, stride)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    if hooks or metadata:
        raise ValueError('a tensor in it has hooks, or is a conjugate or negative view')
    # Bytes are read as truth values only where the storage says so, since other bytes than 0 and 1 make no bool.
    if type(dtype) is not torch.dtype or dtype is torch.bool:
        raise ValueError('the data type of a tensor in it is not known')
    return _tensor(storage, offset, size, stride, dtype)


def _meta_tensor(dtype, size, stride, requires_grad) -> Tensor:
    _last_index(size, stride)
    if type(dtype) is not torch.dtype:
        raise ValueError('the data type of a tensor in it is not known')
    return torch.empty_strided(size, stride, dtype=dtype, device='meta')


def _parameter(data, requires_grad, hooks, state=None) -> Tensor:
    if type(data) is not Tensor or hooks:
        raise ValueError('a parameter in it is not a tensor, or has hooks')
    return data


def _tensor_with_attributes(function, kind, arguments, state) -> Tensor:
    """A tensor or parameter that somebody has given attributes, which are left out."""
    if not (type(function) is type(kind) is Name and function.path in _TENSORS and kind.path in _TENSOR_TYPES):
        raise ValueError('a tensor in it is of a type of its own')
    return _TENSORS[function.path](*arguments)


def _refuses(what: str) -> Callable:
    def refuse(*_: object) -> None:
        raise ValueError(f'it holds a {what} tensor, where dense ones belong')

    return refuse


_TENSORS = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_meta_tensor_no_storage': _meta_tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
}
_TENSOR_TYPES = ('torch.Tensor', 'torch._tensor.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer')
_REFUSED = {
    'torch._utils._rebuild_sparse_tensor': 'sparse',
    'torch._utils._rebuild_sparse_csr_tensor': 'sparse',
    'torch._utils._rebuild_qtensor': 'quantized',
    'torch._utils._rebuild_nested_tensor': 'nested',
}


# --- what torch says of tensors

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
"""The types of storages by their names in a pickle."""


def _size(lengths: object) -> torch.Size:
    if type(lengths) not in (tuple, list) or not all(type(length) is int for length in lengths):
        raise ValueError('a shape in it is not made of integers')
    return torch.Size(lengths)


def _device(kind: object, index: object = None) -> torch.device:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise ValueError('a device in it is not a string')
    return torch.device(kind) if index is None else torch.device(kind, index)


# --- numpy

_KINDS = {*('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')}


def _numpy_dtype(kind: object, align: object = False, copy: object = False) -> Unfinished:
    if type(kind) is not str or kind not in _KINDS:
        raise ValueError('an array in it holds neither numbers nor truth values')

    def finish(state: object) -> np.dtype:
        # Version and byte order, then what only structures and subarrays have.
        if type(state) is not tuple or state[:2] not in ((3, '<'), (3, '>'), (3, '|'), (3, '=')) or any(state[2:5]):
            raise ValueError('an array in it holds neither numbers nor truth values')
        return np.dtype(kind).newbyteorder(state[1])

    return Unfinished(finish)


def _from_bytes(content: object, dtype: object) -> np.ndarray:
    if type(content) is not bytes or not isinstance(dtype, np.dtype):
        raise ValueError('an array in it has no content')
    if dtype.kind == 'b':
        return np.frombuffer(content, np.uint8) != 0
    # A copy, as the bytes cannot be changed.
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder('='))


def _numpy_scalar(dtype: object, content: object) -> np.generic:
    (value,) = _from_bytes(content, dtype)
    return value


def _numpy_array(kind: object, shape: object, code: object) -> Unfinished:
    if type(kind) is not Name or kind.path != 'numpy.ndarray':
        raise ValueError('an array in it is of a type of its own')

    def finish(state: object) -> np.ndarray:
        _version, shape, dtype, fortran, content = state
        return _shaped(_from_bytes(content, dtype), shape, fortran)

    return Unfinished(finish)


def _numpy_from_buffer(content: object, dtype: object, shape: object, order: object) -> np.ndarray:
    return _shaped(_from_bytes(content, dtype), shape, type(order) is str and order == 'F')


def _shaped(flat: np.ndarray, shape: object, fortran: object) -> np.ndarray:
    if type(shape) is not tuple or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError('the shape of an array in it is impossible')
    if math.prod(shape) != flat.size or type(fortran) not in (bool, int):
        raise ValueError('an array in it has another number of elements than its shape')
    return flat.reshape(shape, order='F' if fortran else 'C')


# --- Python


def _ordered_dict(items: object = ()) -> OrderedDict:
    if type(items) not in (tuple, list) or not all(type(item) in (tuple, list) and len(item) == 2 for item in items):
        raise ValueError('an OrderedDict in it is not made of pairs')
    return OrderedDict((checked_key(key), value) for key, value in items)


def _default_dict(default: object = None) -> dict:
    return {}


def _counter(counts: object = None) -> Counter:
    counts = {} if counts is None else counts
    if type(counts) is not dict or not all(type(count) is int for count in counts.values()):
        raise ValueError('a Counter in it does not hold integers')
    return Counter(counts)


def _set(items: object = ()) -> set:
    if type(items) not in (tuple, list):
        raise ValueError('a set in it is not made from a list')
    return set(map(checked_key, items))


def _bytes(text: object = '', encoding: object = 'latin1') -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding != 'latin1':
        raise ValueError('a string of bytes in it is written in an unknown way')
    return text.encode('latin1')


def _complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError('a complex number in it is not made of numbers')
    return complex(real, imaginary)


def _namespace() -> Unfinished:
    def finish(state: object) -> dict:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise ValueError('the names of arguments in it are not strings')
        return state

    return Unfinished(finish)


# --- mmengine


def _method(owner: object, name: object) -> Name:
    """The ``getattr`` by which a HistoryBuffer pickles its statistics; gives a name, as everything here."""
    if type(owner) is not Name or type(name) is not str:
        raise RefusedName('builtins.getattr')
    if owner.path != _BUFFER or name not in _STATISTICS:
        raise RefusedName(f'{owner.path}.{name}')
    return Name(f'{_BUFFER}.{name}')


def _history_buffer() -> Unfinished:
    def finish(state: object) -> dict:
        if type(state) is not dict:
            raise ValueError('a HistoryBuffer in it has no content')
        return dict(
            log_history=state['_log_history'], count_history=state['_count_history'], max_length=state['max_length']
        )

    return Unfinished(finish)


MAKERS: dict[str, Callable | torch.dtype | None] = {
    **_TENSORS,
    'torch._tensor._rebuild_from_type_v2': _tensor_with_attributes,
    **{path: _refuses(kind) for path, kind in _REFUSED.items()},
    **dict.fromkeys((*_TENSOR_TYPES, *STORAGES)),
    **_DTYPES,
    'torch.Size': _size,
    'torch.device': _device,
    'numpy.dtype': _numpy_dtype,
    'numpy.ndarray': None,
    # numpy 2 moved these; files written with either version name them differently.
    **{
        f'{package}.{name}': make
        for package in ('numpy.core', 'numpy._core')
        for name, make in {
            'multiarray._reconstruct': _numpy_array,
            'multiarray.scalar': _numpy_scalar,
            'numeric._frombuffer': _numpy_from_buffer,
        }.items()
    },
    'collections.OrderedDict': _ordered_dict,
    'collections.defaultdict': _default_dict,
    'collections.Counter': _counter,
    'builtins.set': _set,
    'builtins.frozenset': lambda items=(): frozenset(_set(items)),
    'builtins.bytes': _bytes,
    'builtins.complex': _complex,
    '_codecs.encode': _bytes,
    **dict.fromkeys(f'builtins.{name}' for name in ('dict', 'list', 'int', 'float', 'str')),
    'argparse.Namespace': _namespace,
    'builtins.getattr': _method,
    _BUFFER: _history_buffer,
    **dict.fromkeys(f'{_BUFFER}.{name}' for name in _STATISTICS),
}
"""For each name that a checkpoint may hold, its value, or what makes a value of arguments; None for neither."""
