"""Reads the pickles of torch checkpoints without ever running them.

A pickle is a program: a stack machine that may call any importable function. This is an evaluator
for the small part of that language which describes nested dicts, lists, numbers and tensors. It
imports nothing and calls nothing; a name outside `_KNOWN` is refused by name.

Opcodes: https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from webkiln.errors import InvalidModelError, UnsupportedModelError

__all__ = ["STORAGE_DTYPES", "Storage", "StoredTensor", "read_pickle"]

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

_DTYPES = {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    **{name: name for name in STORAGE_DTYPES.values()},
    **{name: name for name in ("uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class Storage:
    """A run of numbers kept outside the pickle, under `key`."""

    key: str
    dtype: str
    length: int
    """In elements of `dtype`; in bytes where the dtype is given by the tensor ('untyped')."""


@dataclass(frozen=True)
class StoredTensor:
    """A strided view of a storage; offset and strides in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A global that the pickle mentions, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_MARK = object()
_MAX_OPCODES = 20_000_000  # a checkpoint of 10,000 tensors has about half a million


def read_pickle(file: IO[bytes], origin: str) -> Any:
    """The value of the pickle that starts at the file's position, which moves just past it.

    Tensors come as `StoredTensor`. Raises `InvalidModelError` if the pickle is malformed or
    truncated, `UnsupportedModelError` if it holds anything but plain data and tensors.
    """
    try:
        return _Evaluator(origin).run(file)
    except (ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        raise InvalidModelError(
            f"{origin}: the checkpoint's pickle is malformed or truncated ({error})",
            hint="download the file again",
        ) from None


class _Evaluator:
    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count > _MAX_OPCODES:
                raise InvalidModelError(f"{self.origin}: the checkpoint's pickle never ends")
            if opcode.name in _PUSH_ARGUMENT:
                self.stack.append(argument)
            elif opcode.name in _OPCODES:
                _OPCODES[opcode.name](self, argument)
            else:
                raise UnsupportedModelError(
                    f"{self.origin}: the checkpoint uses the pickle opcode {opcode.name}, which "
                    "plain data and tensors don't need",
                    hint=_HINT,
                )
        raise ValueError("no end")

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items set on something that is no dict")
        target.update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items appended to something that is no list")
        target.extend(items)

    def push_tuple(self, size: int) -> None:
        items = tuple(self.stack[len(self.stack) - size :])
        if len(items) != size:
            raise IndexError("stack is empty")
        del self.stack[len(self.stack) - size :]
        self.push(items)

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def push_global(self, argument: str | None) -> None:
        if argument is None:  # STACK_GLOBAL
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, name = argument.split(" ", 1)
        known = _Name(str(module), str(name))
        if known not in _KNOWN:
            raise UnsupportedModelError(
                f"{self.origin}: the checkpoint holds {known}, not only tensors; unpickling it "
                "could run code, so it is refused",
                hint=_HINT,
            )
        self.push(known)

    def push_storage(self) -> None:
        kind, storage_type, key, _, length, *view = self.stack.pop()
        if kind != "storage" or (view and view[0] is not None):
            raise UnsupportedModelError(
                f"{self.origin}: the checkpoint stores views of storages, a form that torch gave "
                "up in 2017",
                hint="load it in a recent torch and save its state_dict again",
            )
        dtype = STORAGE_DTYPES.get(storage_type.name, "untyped")
        self.push(Storage(str(key), dtype, int(length)))

    def reduce(self) -> None:
        """A call, of one of the few names that mean data."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in _CALLS:
            raise UnsupportedModelError(
                f"{self.origin}: the checkpoint calls {function}, which is refused", hint=_HINT
            )
        self.push(_CALLS[function](*arguments))

    def build(self) -> None:
        """Drops state set on a state dict: metadata about loading, not about its tensors."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise TypeError("state set on something that is no dict")


_HINT = "in torch, save only the weights: torch.save(model.state_dict(), 'weights.pth')"


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(value) is int for value in values):
        raise TypeError("a shape that is no tuple of integers")
    return values


def _tensor(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise TypeError("a tensor without storage")
    return StoredTensor(storage, storage.dtype, offset, _integers(shape), _integers(strides))


def _tensor_v3(
    storage: Storage, offset: int, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: _Name,
    *_: Any,
) -> StoredTensor:  # fmt: skip
    view = _tensor(storage, offset, shape, strides)
    return StoredTensor(storage, _DTYPES[dtype.name], view.offset, view.shape, view.strides)


def _parameter(tensor: StoredTensor, *_: Any) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise TypeError("a parameter that is no tensor")
    return tensor


_CALLS: dict[_Name, Callable[..., Any]] = {
    _Name("collections", "OrderedDict"): lambda items=(): dict(items),
    _Name("torch", "Size"): _integers,
    _Name("torch._utils", "_rebuild_tensor"): _tensor,
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
}

_KNOWN = {
    *_CALLS,
    *(_Name("torch", name) for name in (*STORAGE_DTYPES, *_DTYPES)),
    _Name("torch.storage", "UntypedStorage"),
}

_PUSH_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "INT", "FLOAT", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING", "STRING",
}  # fmt: skip

_OPCODES: dict[str, Callable[[_Evaluator, Any], Any]] = {
    "PROTO": lambda vm, arg: None,
    "FRAME": lambda vm, arg: None,
    "MARK": lambda vm, arg: vm.push(_MARK),
    "POP": lambda vm, arg: vm.stack.pop(),
    "POP_MARK": lambda vm, arg: vm.pop_mark(),
    "DUP": lambda vm, arg: vm.push(vm.stack[-1]),
    "NONE": lambda vm, arg: vm.push(None),
    "NEWTRUE": lambda vm, arg: vm.push(True),
    "NEWFALSE": lambda vm, arg: vm.push(False),
    "EMPTY_DICT": lambda vm, arg: vm.push({}),
    "EMPTY_LIST": lambda vm, arg: vm.push([]),
    "EMPTY_TUPLE": lambda vm, arg: vm.push(()),
    "TUPLE": lambda vm, arg: vm.push(tuple(vm.pop_mark())),
    "TUPLE1": lambda vm, arg: vm.push_tuple(1),
    "TUPLE2": lambda vm, arg: vm.push_tuple(2),
    "TUPLE3": lambda vm, arg: vm.push_tuple(3),
    "LIST": lambda vm, arg: vm.push(vm.pop_mark()),
    "APPEND": lambda vm, arg: vm.extend([vm.stack.pop()]),
    "APPENDS": lambda vm, arg: vm.extend(vm.pop_mark()),
    "SETITEM": lambda vm, arg: vm.set_items([vm.stack.pop(-2), vm.stack.pop()]),
    "SETITEMS": lambda vm, arg: vm.set_items(vm.pop_mark()),
    "PUT": lambda vm, arg: vm.memoize(arg),
    "BINPUT": lambda vm, arg: vm.memoize(arg),
    "LONG_BINPUT": lambda vm, arg: vm.memoize(arg),
    "MEMOIZE": lambda vm, arg: vm.memoize(None),
    "GET": lambda vm, arg: vm.push(vm.memo[arg]),
    "BINGET": lambda vm, arg: vm.push(vm.memo[arg]),
    "LONG_BINGET": lambda vm, arg: vm.push(vm.memo[arg]),
    "GLOBAL": lambda vm, arg: vm.push_global(arg),
    "STACK_GLOBAL": lambda vm, arg: vm.push_global(None),
    "BINPERSID": lambda vm, arg: vm.push_storage(),
    "REDUCE": lambda vm, arg: vm.reduce(),
    "BUILD": lambda vm, arg: vm.build(),
}
