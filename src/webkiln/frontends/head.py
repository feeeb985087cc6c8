"""A linear classifier over a text encoder's embedding, kept apart from the encoder's weights.

A head is a safetensors file with the tensors ``weight`` [classes, width] and ``bias`` [classes] and
this metadata (all strings): ``labels``, a JSON list of the classes in order; ``pooling`` and
``normalize`` (``"true"`` or ``"false"``), how the embeddings were made that it was trained on; and,
where known, ``name``, ``encoder``, ``license``. A head of 384 → 6 takes 10 KB.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from webkiln.errors import InvalidModelError, ModelNotFoundError
from webkiln.frontends.source import Source

__all__ = ["Head", "read_head", "with_head", "write_head"]

_HINT = "train the head on the embeddings of this very encoder"


@dataclass(frozen=True)
class Head:
    """``logits = embedding @ weight.T + bias``; weight float32 [classes, width], bias [classes]."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    pooling: str
    normalize: bool
    name: str = "classifier"
    encoder: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        classes = len(self.labels)
        if self.weight.ndim != 2 or self.weight.shape[0] != classes:
            raise InvalidModelError(f"a head for {classes} labels has weight {self.weight.shape}")
        if self.bias.shape != (classes,):
            raise InvalidModelError(f"a head for {classes} labels has bias {self.bias.shape}")


def read_head(path: str | os.PathLike[str]) -> Head:
    """The head in a file; raises `ModelNotFoundError`, or `InvalidModelError` if it is none."""
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            data = file.metadata() or {}
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        labels = json.loads(data["labels"])
        pooling, normalize = data["pooling"], {"true": True, "false": False}[data["normalize"]]
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidModelError(
            f"{path.name} is not a classifier head: {error}",
            hint="a head has tensors weight and bias, and metadata labels, pooling and normalize",
        ) from None
    return Head(
        weight.astype(np.float32, copy=False),
        bias.astype(np.float32, copy=False),
        tuple(str(label) for label in labels),
        pooling,
        normalize,
        **{key: data[key] for key in ("name", "encoder", "license") if key in data},
    )


def write_head(head: Head, path: str | os.PathLike[str]) -> None:
    """Write `head` to a safetensors file."""
    metadata = {
        "labels": json.dumps(head.labels),
        "pooling": head.pooling,
        "normalize": "true" if head.normalize else "false",
        "name": head.name,
        "encoder": head.encoder,
        "license": head.license,
    }
    Path(path).write_bytes(save({"weight": head.weight, "bias": head.bias}, metadata=metadata))


def with_head(encoder: Source, head: str | os.PathLike[str] | Head) -> Source:
    """A text classifier: `encoder` with its ``embedding`` [1, width] replaced by ``logits``.

    The result's one output is ``logits``, float32 [1, classes]; its task is ``text-classification``
    and its config has ``labels`` and ``id2label``. `encoder` itself is left as it was.

    Raises `InvalidModelError` if the encoder yields no such embedding, or one that is pooled,
    normalised or wide otherwise than those that the head was trained on.
    """
    if not isinstance(head, Head):
        head = read_head(head)
    _check_fits(encoder, head)
    model = encoder.model.clone()
    graph = model.graph
    embedding = graph.outputs[0]
    embedding.name = "embedding"
    weight = ir.val("classifier.weight.T", const_value=ir.tensor(head.weight.T.copy()))
    bias = ir.val("classifier.bias", const_value=ir.tensor(head.bias))
    for value in (weight, bias):
        graph.register_initializer(value)
    product = ir.node("MatMul", [embedding, weight], name="classifier/MatMul")
    product.outputs[0].name = "classifier/MatMul"
    total = ir.node("Add", [product.outputs[0], bias], name="classifier/Add")
    graph.extend([product, total])
    logits = total.outputs[0]
    logits.name, logits.dtype = "logits", ir.DataType.FLOAT
    logits.shape = ir.Shape([1, len(head.labels)])
    graph.outputs[0] = logits
    labels = list(head.labels)
    id2label = {str(index): label for index, label in enumerate(labels)}
    provenance = dict(encoder.provenance)
    if head.license:
        provenance["head_license"] = head.license
    return replace(
        encoder,
        model=model,
        name=head.name,
        task="text-classification",
        config={**encoder.config, "labels": labels, "id2label": id2label},
        provenance=provenance,
    )


def _check_fits(encoder: Source, head: Head) -> None:
    outputs = encoder.model.graph.outputs
    shape = list(outputs[0].shape) if len(outputs) == 1 and outputs[0].shape is not None else []
    if len(shape) != 2:
        raise InvalidModelError(
            f"{encoder.name} yields no sentence embedding that {head.name} could classify",
            hint="use an encoder whose folder says how tokens are pooled (1_Pooling/config.json)",
        )
    if shape[1] != head.weight.shape[1]:
        raise InvalidModelError(
            f"{head.name} wants embeddings {head.weight.shape[1]} wide, {encoder.name}'s are "
            f"{shape[1]} wide",
            hint=_HINT,
        )
    pooling = encoder.config.get("pooling")
    normalize = bool(encoder.config.get("normalize", False))
    if (pooling, normalize) != (head.pooling, head.normalize):
        raise InvalidModelError(
            f"{head.name} was trained on embeddings with pooling {head.pooling!r} and normalize="
            f"{head.normalize}, {encoder.name}'s have {pooling!r} and {normalize}",
            hint=_HINT,
        )
