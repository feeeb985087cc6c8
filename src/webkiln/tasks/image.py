"""Images → input tensors: resize, crop, rescale, normalise.

``plan["task"]["preprocess"]`` says how; sizes there are [height, width]. The browser does the
same in runtime/src/tasks/prepare.ts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from webkiln.errors import InputError

__all__ = ["FILTERS", "from_preprocessor", "imagenet", "open_image", "output_size", "prepare"]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Pillow's own numbers, in which Hugging Face's preprocessor_config.json names filters.
_BY_NUMBER = {int(number): name for name, number in FILTERS.items()}

_MEAN = [0.485, 0.456, 0.406]  # of ImageNet's training images, by which most models normalise
_STD = [0.229, 0.224, 0.225]


def imagenet(size: tuple[int, int], channels: int, layout: str) -> dict[str, Any]:
    """What most ImageNet models were evaluated with: an eighth cut off, mean and std."""
    grey = channels == 1
    return {
        "resize": {"shortest": round(max(size) * 8 / 7), "resample": "bilinear"},
        "crop": list(size),
        "rescale": 1 / 255,
        "mean": [0.0] if grey else _MEAN,
        "std": [1.0] if grey else _STD,
        "layout": layout,
    }


def from_preprocessor(config: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """Settings from Hugging Face's preprocessor_config.json.

    Raises `InputError` for a size that is given in no known way.
    """
    filter_name = _BY_NUMBER.get(config.get("resample", 2), "bilinear")
    size, crop = _size(config.get("size", 224)), _size(config.get("crop_size"))
    if (share := config.get("crop_pct")) and "shortest" in size and size["shortest"] < 384:
        crop = {"size": [size["shortest"]] * 2}  # ConvNeXt: resized larger, then cropped
        size = {"shortest": int(size["shortest"] / share)}
    settings: dict[str, Any] = {"resize": {**size, "resample": filter_name}}
    if crop and config.get("do_center_crop", "crop_pct" in config):
        settings["crop"] = crop.get("size") or [crop["shortest"]] * 2
    normalize = config.get("do_normalize", True)
    rescale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    return settings | {
        "rescale": rescale,
        "mean": list(config.get("image_mean", _MEAN)) if normalize else [0.0] * 3,
        "std": list(config.get("image_std", _STD)) if normalize else [1.0] * 3,
        "layout": layout,
    }


def _size(given: Any) -> dict[str, Any]:
    """``{"shortest": n}`` or ``{"size": [height, width]}``; empty for None."""
    match given:
        case None:
            return {}
        case int():
            return {"size": [given, given]}
        case {"height": int(height), "width": int(width)}:
            return {"size": [height, width]}
        case {"shortest_edge": int(edge)}:
            return {"shortest": edge}
        case [int(height), int(width)]:
            return {"size": [height, width]}
    raise InputError(f"preprocessor_config.json: {given!r} is no image size that is known")


def output_size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """[height, width] of the tensor, for settings that give every image the same."""
    size: Sequence[int] | None = settings.get("crop") or settings["resize"].get("size")
    if size is None:
        raise InputError(
            "the preprocessing gives every image another size", hint="add a crop to it"
        )
    height, width = size
    return height, width


def open_image(source: Path | bytes) -> Image.Image:
    """An image as it should be looked at. Raises `InputError` if it is not an image."""
    name = source.name if isinstance(source, Path) else "the image"
    try:
        image = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
        return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise InputError(f"no such file: {source!s}", hint="check the path") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{name} is not an image that can be read ({error})",
            hint="use a JPEG, PNG or WebP file",
        ) from error


def prepare(image: Image.Image, settings: Mapping[str, Any]) -> np.ndarray:
    """float32 [1, channels, height, width], or [1, height, width, channels] for layout NHWC."""
    grey = len(settings["mean"]) == 1
    image = image.convert("L" if grey else "RGB")
    resize = settings["resize"]
    image = image.resize(_scaled(image.size, resize), FILTERS[resize["resample"]])
    if crop := settings.get("crop"):
        left, top = (image.width - crop[1]) // 2, (image.height - crop[0]) // 2
        image = image.crop((left, top, left + crop[1], top + crop[0]))
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    pixels = pixels * np.float32(settings["rescale"])
    pixels = (pixels - np.float32(settings["mean"])) / np.float32(settings["std"])
    if settings["layout"] == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None], np.float32)


def _scaled(size: tuple[int, int], resize: Mapping[str, Any]) -> tuple[int, int]:
    """[width, height] after the resize. The longer edge is cut to a whole number, not rounded."""
    if "size" in resize:
        height, width = resize["size"]
        return width, height
    (width, height), shortest = size, int(resize["shortest"])
    if width <= height:
        return shortest, int(shortest * height / width)
    return int(shortest * width / height), shortest
