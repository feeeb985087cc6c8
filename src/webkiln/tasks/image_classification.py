"""A photograph → what it shows: the most likely classes, best first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.tasks import image, ports, scores

__all__ = ["NAME", "matches", "plan_config", "postprocess", "preprocess", "sample"]

NAME = "image-classification"
TOP = 5


def matches(source: Source) -> bool:
    """An image goes in, and the source knows its classes or its preprocessing."""
    shape = ports.inputs(source.model)[0].shape if ports.inputs(source.model) else ()
    one = len(ports.inputs(source.model)) == 1 and len(ports.outputs(source.model)[0].shape) == 2
    return one and _layout(shape) is not None and _knows_images(source)


def _knows_images(source: Source) -> bool:
    hints = ("labels", "id2label", "preprocess", "preprocessor_config")
    return any(source.config.get(key) for key in hints)


def plan_config(source: Source) -> dict[str, Any]:
    """Preprocessing, labels, and what turns the output into probabilities.

    Raises `InputError` if the model's input is no image, or not of the size that the preprocessing
    makes.
    """
    return {
        "name": NAME,
        "preprocess": _settings(source),
        "labels": scores.labels(source),
        "activation": scores.activation(source),
        "top": TOP,
        "samples": source.config.get("samples", []),
        "about": source.provenance,
    }


def sample(source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The first sample photograph of the source, else a picture with edges and smooth shades."""
    port, settings = ports.inputs(source.model)[0], _settings(source)
    first = next(iter(source.config.get("samples", [])), None)
    picture = image.open_image(source.assets[first["file"]]) if first else _test_card()
    batch = port.concrete(dims)[0]
    tensor = image.prepare(picture, settings)
    return {port.name: np.repeat(tensor, batch, axis=0).astype(port.dtype)}


def preprocess(value: str | Path, plan: Mapping[str, Any], base: Path) -> dict[str, np.ndarray]:
    """An image file → the model's one input, of batch 1."""
    port = plan["programs"][0]["inputs"][0]
    tensor = image.prepare(image.open_image(Path(value)), plan["task"]["preprocess"])
    return {port["name"]: tensor.astype(port["dtype"])}


def postprocess(outputs: Mapping[str, np.ndarray], plan: Mapping[str, Any]) -> Any:
    """The best classes as ``[{"label", "score"}, …]``."""
    task, name = plan["task"], plan["programs"][0]["outputs"][0]["name"]
    found = scores.activate(outputs[name].reshape(-1).astype(np.float32), task["activation"])
    return scores.rank(found, task["labels"], task["top"])


def _settings(source: Source) -> dict[str, Any]:
    port = ports.inputs(source.model)[0]
    layout = _layout(port.shape)
    if layout is None:
        raise InputError(
            f"input {port.name} of shape {list(port.shape)} takes no images",
            hint="an image model takes [batch, channels, height, width] with 1 or 3 channels; "
            "build with --task generic",
        )
    axes = (2, 3, 1) if layout == "NCHW" else (1, 2, 3)
    height, width, channels = (port.shape[axis] for axis in axes)
    if given := source.config.get("preprocess"):
        settings = {"layout": layout, **given}
    elif given := source.config.get("preprocessor_config"):
        settings = image.from_preprocessor(given, layout)
    else:
        edge = (
            height if isinstance(height, int) else 224,
            width if isinstance(width, int) else 224,
        )
        settings = image.imagenet(edge, int(channels or 3), layout)
    made = image.output_size(settings)
    for size, wanted in zip(made, (height, width), strict=True):
        if isinstance(wanted, int) and wanted != size:
            raise InputError(
                f"the preprocessing makes images of {made[0]} × {made[1]}, but input {port.name} "
                f"takes {height} × {width}",
                hint="correct the crop in preprocessor_config.json",
            )
    return settings


def _layout(shape: tuple[int | str | None, ...]) -> str | None:
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3):
        return "NCHW"
    return "NHWC" if shape[3] in (1, 3) else None


def _test_card() -> Image.Image:
    """A picture that has what photographs have: gradients, an edge, some noise."""
    y, x = np.mgrid[0:320, 0:400] / 320
    shades = np.stack([x, y, 1 - x * y], axis=2) * 200
    shades[(x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.1] = (230, 180, 60)
    noise = np.random.default_rng(0).normal(0, 8, shades.shape)
    return Image.fromarray(np.clip(shades + noise, 0, 255).astype(np.uint8))
