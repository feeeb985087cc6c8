"""torch checkpoints (.pth, .pt, .bin) without torch: tensors are taken, all else is refused.

Two containers hold the same pickle: a zip archive (torch ≥ 1.6) and a plain sequence of pickles
followed by the storages (before).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.pickles import Storage, StoredTensor, read_pickle

__all__ = ["is_legacy_checkpoint", "read_checkpoint"]

# The number that torch writes first, as a pickle of its own (torch/serialization.py, MAGIC_NUMBER).
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Where training scripts put the weights, inside a checkpoint that holds more.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "net", "module", "ema")

Array = npt.NDArray[Any]


def is_legacy_checkpoint(head: bytes) -> bool:
    """Whether a file that begins with `head` is a checkpoint from before torch 1.6."""
    return head.startswith(_LEGACY_START)


def read_checkpoint(path: Path) -> dict[str, ir.TensorProtocol]:
    """The state dict in a torch checkpoint: name → tensor, memory-mapped where the file allows.

    Strides and storage offsets are honoured; the arrays that come out are in C order when read.

    Raises `UnsupportedModelError` if the file holds pickled things other than plain data and
    tensors (it names the first), `InvalidModelError` if it is malformed, truncated, or has no
    tensors.
    """
    if zipfile.is_zipfile(path):
        tree, storages = _read_zip(path)
    else:
        tree, storages = _read_legacy(path)
    state = dict(_find_state(tree))
    if not state:
        raise InvalidModelError(
            f"{path.name}: no tensors in this checkpoint",
            hint="save the model's state_dict: torch.save(model.state_dict(), 'weights.pth')",
        )
    return {name: _tensor(name, tensor, storages, path) for name, tensor in state.items()}


def _find_state(tree: Any) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of the state dict, looked for at the top and inside the usual wrappers."""
    if not isinstance(tree, dict):
        return
    for key in _WRAPPERS:
        inner = tree.get(key)
        if isinstance(inner, dict) and any(isinstance(v, StoredTensor) for v in inner.values()):
            tree = inner
            break
    for name, value in tree.items():
        if isinstance(name, str) and isinstance(value, StoredTensor):
            yield name.removeprefix("module."), value  # DataParallel prefixes every name


def _read_legacy(path: Path) -> tuple[Any, dict[str, Array]]:
    origin = path.name
    size = path.stat().st_size
    with path.open("rb") as file:
        if read_pickle(file, origin) != _LEGACY_MAGIC:
            raise InvalidModelError(f"{origin} is a pickle, but no torch checkpoint")
        read_pickle(file, origin)  # protocol version
        system = read_pickle(file, origin)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UnsupportedModelError(f"{origin}: written on a big-endian machine")
        tree = read_pickle(file, origin)
        keys = read_pickle(file, origin)
        wanted = {tensor.storage.key: tensor.storage for _, tensor in _find_state(tree)}
        known = _all_storages(tree)
        storages: dict[str, Array] = {}
        for key in keys if isinstance(keys, list) else []:
            storage = known.get(str(key))
            if storage is None:
                raise InvalidModelError(f"{origin}: storage {key!r} belongs to no tensor")
            length = int.from_bytes(file.read(8), "little")
            dtype, start = _numpy_dtype(storage.dtype), file.tell()
            end = start + length * dtype.itemsize
            if end > size:
                raise _truncated(origin, end, size)
            if str(key) in wanted:
                storages[str(key)] = np.memmap(path, dtype, "r", start, (length,))
            file.seek(end)
    return tree, storages


def _all_storages(tree: Any) -> dict[str, Storage]:
    """Every storage that any tensor of the checkpoint uses, wherever it sits."""
    found: dict[str, Storage] = {}
    todo, seen = [tree], set()
    while todo:
        item = todo.pop()
        if isinstance(item, StoredTensor):
            found[item.storage.key] = item.storage
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
    return found


def _read_zip(path: Path) -> tuple[Any, dict[str, Array]]:
    origin = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "data.pkl" not in members:
                raise InvalidModelError(f"{origin} is a zip archive, but no torch checkpoint")
            if any(name.startswith("code/") for name in members):
                raise UnsupportedModelError(
                    f"{origin} is a TorchScript program, not a checkpoint",
                    hint="export the model to ONNX or, with torch.export, to .pt2",
                )
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                raise UnsupportedModelError(f"{origin}: written on a big-endian machine")
            with archive.open(members["data.pkl"]) as file:
                tree = read_pickle(file, origin)
            storages: dict[str, Array] = {}
            for _, tensor in _find_state(tree):
                storage = tensor.storage
                info = members.get(f"data/{storage.key}")
                if info is None:
                    raise InvalidModelError(f"{origin}: storage {storage.key!r} is missing")
                if storage.key not in storages:
                    storages[storage.key] = _zip_storage(path, archive, info, storage)
    except zipfile.BadZipFile as error:
        raise InvalidModelError(
            f"{origin} is damaged ({error})", hint="download the file again"
        ) from None
    return tree, storages


def _zip_storage(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, storage: Storage
) -> Array:
    dtype = _numpy_dtype(storage.dtype)
    size = storage.length * dtype.itemsize
    if info.file_size != size:
        raise InvalidModelError(
            f"{path.name}: storage {storage.key!r} has {info.file_size:,} bytes, not {size:,}",
            hint="download the file again",
        )
    if size == 0:
        return np.empty(0, dtype)
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(archive.read(info), dtype)
    with path.open("rb") as file:  # the member's data follow its local header, names included
        file.seek(info.header_offset + 26)
        names = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
    start = info.header_offset + 30 + names
    if start + size > path.stat().st_size:
        raise _truncated(path.name, start + size, path.stat().st_size)
    return np.memmap(path, dtype, "r", start, (storage.length,))


def _tensor(
    name: str, tensor: StoredTensor, storages: dict[str, Array], path: Path
) -> ir.TensorProtocol:
    data = storages.get(tensor.storage.key)
    if data is None:
        raise InvalidModelError(f"{path.name}: the storage of tensor {name!r} is missing")
    dtype = _numpy_dtype(tensor.dtype)
    if tensor.storage.dtype == "untyped":
        data = data[: data.size // dtype.itemsize * dtype.itemsize].view(dtype)
    shape, strides = tensor.shape, tensor.strides
    count = int(np.prod(shape, dtype=object)) if shape else 1
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=False))
    if (
        len(shape) != len(strides)
        or min((tensor.offset, *shape, *strides)) < 0
        or (count > 0 and last >= data.size)
        or count > max(data.size, 1 << 20)  # strides of 0 could claim any size from one number
    ):
        raise InvalidModelError(
            f"{path.name}: tensor {name!r} reaches outside its storage "
            f"(shape {list(shape)}, strides {list(strides)}, offset {tensor.offset}, "
            f"{data.size} numbers)",
            hint="download the file again",
        )
    view = np.lib.stride_tricks.as_strided(
        data[tensor.offset :] if count else data[:0],
        shape,
        [stride * dtype.itemsize for stride in strides],
        writeable=False,
    )
    return ir.LazyTensor(
        lambda: ir.tensor(np.array(view, order="C", copy=True)),
        dtype=ir.DataType.from_numpy(dtype),
        shape=ir.Shape(shape),
        name=name,
    )


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "untyped":  # bytes, which the tensor's own dtype tells how to read
        return np.dtype(np.uint8)
    if name == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return np.dtype(name)


def _truncated(origin: str, wanted: int, size: int) -> InvalidModelError:
    return InvalidModelError(
        f"{origin} is truncated: it should have at least {wanted:,} bytes and has {size:,}",
        hint="download the file again",
    )
