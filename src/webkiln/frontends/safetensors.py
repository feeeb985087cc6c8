"""The safetensors format: a JSON header, then raw tensors. Tensors stay memory-mapped.

Format: https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir

from webkiln.errors import InvalidModelError

__all__ = ["is_safetensors", "memory_mapped", "read_safetensors", "read_sharded"]

_DTYPES = {
    "BOOL": ir.DataType.BOOL,
    "U8": ir.DataType.UINT8,
    "I8": ir.DataType.INT8,
    "U16": ir.DataType.UINT16,
    "I16": ir.DataType.INT16,
    "U32": ir.DataType.UINT32,
    "I32": ir.DataType.INT32,
    "U64": ir.DataType.UINT64,
    "I64": ir.DataType.INT64,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F32": ir.DataType.FLOAT,
    "F64": ir.DataType.DOUBLE,
}

_MAX_HEADER = 100_000_000  # the format's own limit


def is_safetensors(path: Path) -> bool:
    """Whether the first bytes are a header length and an opening brace."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER


def read_safetensors(path: Path) -> dict[str, ir.TensorProtocol]:
    """The tensors of one file, by name, each a view of the file that is read on use.

    Raises `InvalidModelError` if the file is no safetensors file or is truncated.
    """
    entries, start = _header(path)
    size = path.stat().st_size
    tensors: dict[str, ir.TensorProtocol] = {}
    for name, entry in entries.items():
        try:
            dtype, shape = _DTYPES.get(entry["dtype"]), [int(dim) for dim in entry["shape"]]
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise InvalidModelError(
                f"{path.name}: the entry of tensor {name!r} is malformed"
            ) from None
        if dtype is None:
            raise InvalidModelError(
                f"{path.name}: tensor {name!r} has dtype {entry['dtype']}, which is not supported",
                hint="save the weights as float32, float16 or bfloat16",
            )
        tensor = ir.ExternalTensor(
            path.name,
            start + begin,
            end - begin,
            dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=path.parent,
        )
        if not 0 <= begin <= end or end - begin != tensor.nbytes or min(shape, default=0) < 0:
            raise InvalidModelError(f"{path.name}: tensor {name!r} has inconsistent offsets")
        if start + end > size:
            raise InvalidModelError(
                f"{path.name} is truncated: tensor {name!r} ends at byte {start + end:,}, "
                f"the file at {size:,}",
                hint="download the file again",
            )
        tensors[name] = memory_mapped(tensor)
    return tensors


def memory_mapped(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    """`tensor` as one that serializes with its values: read from its file on use, never kept."""
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def read_sharded(index: Path) -> dict[str, ir.TensorProtocol]:
    """The tensors of all shards that ``model.safetensors.index.json`` lists."""
    try:
        shards = sorted({str(s) for s in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidModelError(f"{index.name} is not an index of safetensors shards") from None
    tensors: dict[str, ir.TensorProtocol] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise InvalidModelError(f"{index.name} names a shard outside its folder: {shard!r}")
        path = index.parent / shard
        if not path.is_file():
            raise InvalidModelError(
                f"weight shard {shard} is missing from {index.parent}",
                hint="download the model again; every shard of the index is needed",
            )
        tensors.update(read_safetensors(path))
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's tensor entries and where the data starts."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise InvalidModelError(f"{path.name} is not a safetensors file")
        text = file.read(length)
    if len(text) < length:
        raise InvalidModelError(
            f"{path.name} is truncated: it ends within its header of {length:,} bytes",
            hint="download the file again",
        )
    try:
        header = json.loads(text)
    except ValueError:
        raise InvalidModelError(f"{path.name} is not a safetensors file") from None
    if not isinstance(header, dict):
        raise InvalidModelError(f"{path.name} is not a safetensors file")
    header.pop("__metadata__", None)
    return header, 8 + length
