"""ONNX models: a file (weights inside or beside it) or an object in memory.

The model comes in as it is, at its own opset. Raising old opsets to the one that the compiler
speaks is a graph pass (passes/normalize_opset.py), because it works best on a graph whose constant
branches are already gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.chat_files import add_chat_files, context_length, read_object
from webkiln.frontends.past_ports import past_ports
from webkiln.frontends.safetensors import memory_mapped
from webkiln.frontends.source import Source

__all__ = ["MAX_OPSET", "load_onnx", "looks_like_onnx", "source_from_model"]

MAX_OPSET = 28

# The first field of every ONNX file is ir_version (field 1, a varint), which is at most 14 today.
_IR_VERSION_TAG, _MAX_IR_VERSION = 0x08, 64


def looks_like_onnx(head: bytes) -> bool:
    """Whether a file that begins with `head` can be a serialized ModelProto."""
    return len(head) >= 2 and head[0] == _IR_VERSION_TAG and 0 < head[1] < _MAX_IR_VERSION


def load_onnx(path: Path, context: int | None = None, folder: Path | None = None) -> Source:
    """Reads an ONNX file. External weights stay in their files until they are needed.

    A causal language model with past and present keys gets a cache of `context` tokens; its
    tokenizer is in `folder`, by default beside the file. Without a tokenizer it is a model like any
    other.

    Raises `InvalidModelError` if the file is no ONNX model, is truncated, or lacks a file of its
    external data, `UnsupportedModelError` if its opset is newer than `MAX_OPSET`.
    """
    data = path.read_bytes()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise _not_a_model(path, data) from None
    if not proto.HasField("graph") or not proto.graph.output or not proto.ir_version:
        raise _not_a_model(path, data)
    source = source_from_model(proto, name=path.stem, base_dir=path.parent)
    source.provenance["origin"] = path.name
    ports = past_ports(source.model)
    folder = folder or path.parent
    if ports is not None and (folder / "tokenizer.json").is_file():
        config = read_object(folder / "config.json")
        add_chat_files(source, folder, config, ports, context_length(folder, config, context))
    return source


def source_from_model(
    model: onnx.ModelProto | ir.Model, *, name: str | None = None, base_dir: Path | None = None
) -> Source:
    """A source from a model in memory, which is left as it is.

    `base_dir` is where relative external data lies (the current folder if None).
    """
    if isinstance(model, ir.Model):
        graph = model.clone()
    else:
        graph = _deserialize(model, name or "the model")
        _resolve_external(graph, base_dir or Path())
    for domain in ("ai.onnx",):  # an alias of the default domain
        if domain in graph.opset_imports:
            graph.opset_imports[""] = graph.opset_imports.pop(domain)
    opset = graph.opset_imports.setdefault("", 1)
    if opset > MAX_OPSET:
        raise UnsupportedModelError(
            f"{name or 'the model'} uses ONNX opset {opset}; up to {MAX_OPSET} is supported",
            hint=f"export it again with opset {MAX_OPSET} or lower",
        )
    provenance = {"producer": graph.producer_name} if graph.producer_name else {}
    if graph.metadata_props.get("license"):
        provenance["license"] = graph.metadata_props["license"]
    return Source(
        graph,
        name=name or graph.graph.name or "model",
        provenance=provenance,
    )


def _deserialize(proto: onnx.ModelProto, name: str) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        cause = error.__cause__ or error
        raise InvalidModelError(f"{name}: the ONNX graph is malformed ({cause})") from None


def _resolve_external(model: ir.Model, base_dir: Path) -> None:
    """Points external tensors at their files and checks that those are there and long enough."""
    for holder, attribute, tensor in _external_tensors(model):
        location = str(tensor.location)
        parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
        if Path(location).is_absolute() or PureWindowsPath(location).drive or ".." in parts:
            raise InvalidModelError(
                f"the weights of {tensor.name!r} are in {location!r}, outside the model's folder",
                hint="save the model with its external data beside it",
            )
        tensor.base_dir = base_dir
        path = base_dir / location
        if not path.is_file():
            raise InvalidModelError(
                f"external data file {location} is missing: the weights of {tensor.name!r} "
                f"should be in {path}",
                hint="put the file beside the model; both are needed",
            )
        end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if end > path.stat().st_size:
            raise InvalidModelError(
                f"external data file {location} is truncated: the weights of {tensor.name!r} "
                f"end at byte {end:,}, the file at {path.stat().st_size:,}",
                hint="download the file again",
            )
        if isinstance(holder, ir.Value):
            holder.const_value = memory_mapped(tensor)
        else:
            holder.attributes[attribute] = ir.AttrTensor(attribute, memory_mapped(tensor))


def _external_tensors(
    model: ir.Model,
) -> Iterator[tuple[ir.Value | ir.Node, str, ir.ExternalTensor]]:
    """Each external tensor, with the initializer or the node and attribute that holds it."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value, "", value.const_value
    nodes = [*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f)]
    for node in nodes:
        for name, attribute in list(node.attributes.items()):
            if isinstance(attribute.value, ir.ExternalTensor):
                yield node, name, attribute.value


def _not_a_model(path: Path, data: bytes) -> InvalidModelError:
    missing = _bytes_missing(data)
    if looks_like_onnx(data) and missing is not None:
        return InvalidModelError(
            f"{path.name} is truncated: it has {len(data):,} bytes, at least {missing:,} more "
            "should follow",
            hint="download or export the file again",
        )
    if not data:
        return InvalidModelError(f"{path.name} is empty", hint="download or export it again")
    if data.startswith(b"version https://git-lfs"):
        return InvalidModelError(
            f"{path.name} is a Git LFS pointer, not the model itself", hint="run: git lfs pull"
        )
    return InvalidModelError(f"{path.name} is not an ONNX model", hint="check the file's type")


def _bytes_missing(data: bytes) -> int | None:
    """How many bytes the last top-level protobuf field lacks; None if that isn't what is wrong.

    A message is a list of (tag, value); of wire type 2 the value begins with its length.
    https://protobuf.dev/programming-guides/encoding/
    """

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not byte & 0x80:
                return value, at

    at = 0
    try:
        while at < len(data):
            tag, at = varint(at)
            match tag & 7:
                case 0:
                    _, at = varint(at)
                case 1:
                    at += 8
                case 2:
                    length, at = varint(at)
                    at += length
                case 5:
                    at += 4
                case _:
                    return None
            if at > len(data):
                return at - len(data)
    except IndexError:
        return 1
    return None
