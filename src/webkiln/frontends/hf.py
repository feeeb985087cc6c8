"""Model folders in Hugging Face layout.

That is config.json, weights and tokenizer.json, and what belongs to them: modules.json of
sentence-transformers, preprocessor_config.json of image models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import InvalidModelError, MissingDependencyError, UnsupportedModelError
from webkiln.frontends.bert import MODEL_TYPES, POOLING, SEQUENCE, build_bert
from webkiln.frontends.builder import Weights, sizes
from webkiln.frontends.chat_files import add_chat_files, context_length
from webkiln.frontends.past_ports import past_ports
from webkiln.frontends.pth import read_checkpoint
from webkiln.frontends.safetensors import read_safetensors, read_sharded
from webkiln.frontends.source import Source

__all__ = [
    "describe",
    "has_weights",
    "is_built_here",
    "load_hf",
    "load_with_mobius",
    "read_weights",
]

_SAFETENSORS = "model.safetensors"
_SAFETENSORS_INDEX = "model.safetensors.index.json"
_TORCH_BIN = "pytorch_model.bin"

# What the application needs beside the graph.
_ASSETS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_HEADS = {
    "ForSequenceClassification": ("sequence-classification", "text-classification"),
    "ForTokenClassification": ("token-classification", "token-classification"),
}
# Architectures whose encoder is what one wants of them; their own heads are dropped.
_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")

_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def has_weights(path: Path) -> bool:
    """Whether the folder has weights in a form that is read here."""
    return any((path / name).is_file() for name in (_SAFETENSORS, _SAFETENSORS_INDEX, _TORCH_BIN))


def is_built_here(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is one that this package builds itself, without torch."""
    return config.get("model_type") in MODEL_TYPES and _head(config) is not None


def read_weights(path: Path) -> Weights:
    """The folder's tensors, memory-mapped."""
    if (path / _SAFETENSORS).is_file():
        return read_safetensors(path / _SAFETENSORS)
    if (path / _SAFETENSORS_INDEX).is_file():
        return read_sharded(path / _SAFETENSORS_INDEX)
    return read_checkpoint(path / _TORCH_BIN)


def load_hf(path: Path, config: Mapping[str, Any]) -> Source:
    """A BERT encoder with the head, or the pooling, that its folder describes."""
    weights = read_weights(path)
    head, task = _head(config) or (None, "feature-extraction")
    settings: dict[str, Any] = {}
    if head is None:
        settings = _sentence_transformer(path)
    name = path.resolve().name
    model = build_bert(
        config,
        weights,
        head=head,
        pooling=settings.get("pooling"),
        normalize=bool(settings.get("normalize")),
        name=name,
    )
    source = Source(model, name, task, config=settings)
    source.config["max"] = {SEQUENCE: _max_length(path, config, weights)}
    describe(source, path, config)
    if head is not None and "id2label" not in source.config:
        shape = model.graph.outputs[0].shape
        classes = shape[-1] if shape is not None else 0
        source.config["labels"] = [f"LABEL_{index}" for index in range(int(str(classes)))]
    if "tokenizer.json" not in source.assets:
        raise InvalidModelError(
            f"{path} has no tokenizer.json, which turns text into the model's input",
            hint="save it with AutoTokenizer.from_pretrained(…).save_pretrained(folder)",
        )
    return source


def describe(source: Source, path: Path, config: Mapping[str, Any]) -> None:
    """Adds to `source` what the folder's other files say of the model."""
    labels = config.get("id2label")
    if isinstance(labels, dict) and labels:
        source.config["id2label"] = {str(key): str(value) for key, value in labels.items()}
        try:
            ordered = sorted(labels.items(), key=lambda item: int(item[0]))
        except ValueError:
            raise InvalidModelError("config.json: the keys of id2label are no numbers") from None
        source.config["labels"] = [str(value) for _, value in ordered]
    for name in ("labels.txt", "labels.json"):
        if "labels" not in source.config and (path / name).is_file():
            source.config["labels"] = _read_labels(path / name)
    if (path / "preprocessor_config.json").is_file():
        preprocess = _image_preprocessing(_read_json(path / "preprocessor_config.json"))
        if preprocess:
            source.config["preprocess"] = preprocess
    for architecture in config.get("architectures") or []:
        if source.task is None and str(architecture).endswith("ForImageClassification"):
            source.task = "image-classification"
        if source.task is None and str(architecture).endswith("ForSequenceClassification"):
            source.task = "text-classification"
    # What the others say of a language model is in its config (chat_files).
    for name in ("tokenizer.json",) if "generation" in source.config else _ASSETS:
        if (path / name).is_file():
            source.assets[name] = (path / name).read_bytes()
    source.provenance.setdefault("origin", str(config.get("_name_or_path") or source.name))
    license_name = _license(path / "README.md")
    if license_name:
        source.provenance["license"] = license_name


def load_with_mobius(path: Path, config: Mapping[str, Any], context: int | None = None) -> Source:
    """Any other architecture, through the ``hf`` extra.

    `context` is how many tokens a language model's cache holds.
    """
    kind = config.get("model_type", "unknown")
    try:
        import mobius
    except ImportError:
        raise MissingDependencyError(
            f"the architecture {kind!r} is not built in; mobius-onnx, which may know it, is not "
            "installed",
            hint="pip install 'webkiln[hf]', or export the model to ONNX",
        ) from None
    try:
        package = mobius.build(str(path), dtype="f32")
    except Exception as error:  # it reads configs of any kind and checks few of them
        reason = str(error).strip() or type(error).__name__
        raise UnsupportedModelError(
            f"mobius-onnx cannot build the architecture {kind!r}: {reason}",
            hint="export the model to ONNX",
        ) from error
    models = dict(package)
    if len(models) != 1:
        raise UnsupportedModelError(
            f"{kind!r} is made of several models ({', '.join(models)}); only single ones are built"
        )
    model = next(iter(models.values()))
    _lay_out(model)
    source = Source(model, path.resolve().name)
    ports = past_ports(source.model)
    if ports is not None:
        add_chat_files(source, path, config, ports, context_length(path, config, context))
    describe(source, path, config)
    return source


def _lay_out(model: ir.Model) -> None:
    """Puts the elements of transposed weights in order, when they are read."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.LazyTensor) and len(tensor.shape) > 1:
            value.const_value = ir.LazyTensor(
                partial(_in_order, tensor), dtype=tensor.dtype, shape=tensor.shape, name=value.name
            )


def _in_order(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(np.ascontiguousarray(tensor.numpy()))


def _head(config: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The head that the architecture names and the task it is for; None if it isn't built here."""
    architectures = config.get("architectures") or ["Model"]
    for architecture in map(str, architectures):
        for suffix, head in _HEADS.items():
            if architecture.endswith(suffix):
                return head
        if architecture.endswith(_ENCODERS):
            return None, "feature-extraction"
    return None


def _sentence_transformer(path: Path) -> dict[str, Any]:
    """Pooling and normalisation as modules.json and the pooling's own config have them."""
    if not (path / "modules.json").is_file() and not (path / "1_Pooling").is_dir():
        return {}
    folder, normalize = "1_Pooling", False
    if (path / "modules.json").is_file():
        for module in _read_json(path / "modules.json"):
            kind = str(module.get("type", "")).rpartition(".")[2]
            match kind:
                case "Pooling":
                    folder = str(module.get("path", folder))
                case "Normalize":
                    normalize = True
                case "Transformer":
                    pass
                case _:
                    raise UnsupportedModelError(
                        f"the sentence-transformers module {kind} is not supported",
                        hint="export the whole model to ONNX",
                    )
    pooling = _read_json(path / folder / "config.json")
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    names = [mode.removeprefix("pooling_mode_") for mode in modes]
    names = [name.removesuffix("_tokens").removesuffix("_token") for name in names]
    names = ["mean_sqrt_len" if name.startswith("mean_sqrt_len") else name for name in names]
    if len(names) != 1 or names[0] not in POOLING:
        raise UnsupportedModelError(
            f"pooling by {' and '.join(names) or 'nothing'} is not supported",
            hint=f"one of: {', '.join(POOLING)}",
        )
    return {"pooling": names[0], "normalize": normalize}


def _max_length(path: Path, config: Mapping[str, Any], weights: Weights) -> int:
    """The longest input, in tokens, that the weights and the settings allow."""
    table = next(
        (t for key, t in weights.items() if key.endswith("position_embeddings.weight")), None
    )
    limit = int(config.get("max_position_embeddings") or 512)
    if table is not None:
        limit = min(limit, sizes(table)[0])
    if config.get("model_type") == "roberta":  # counts from the padding's index + 1
        limit -= int(config.get("pad_token_id", 1)) + 1
    settings = path / "sentence_bert_config.json"
    if settings.is_file():
        limit = min(limit, int(_read_json(settings).get("max_seq_length") or limit))
    return limit


def _image_preprocessing(config: Any) -> dict[str, Any]:
    """An image processor's settings in the form of `Source.config`; {} if it isn't for images."""
    if not isinstance(config, dict) or "image_mean" not in config:
        return {}
    size, crop = config.get("size"), config.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size}
    size = size or {}
    resample = _PILLOW_FILTERS.get(config.get("resample", 2), "bilinear")
    result: dict[str, Any] = {}
    if "shortest_edge" in size:
        result["resize"] = {"shortest": size["shortest_edge"], "resample": resample}
    elif "height" in size:
        result["resize"] = {"size": [size["height"], size["width"]], "resample": resample}
    if config.get("do_center_crop") and crop:
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        result["crop"] = [crop["height"], crop["width"]]
    rescale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    normalize = config.get("do_normalize", True)
    result["rescale"] = rescale
    result["mean"] = config["image_mean"] if normalize else [0.0, 0.0, 0.0]
    result["std"] = config["image_std"] if normalize else [1.0, 1.0, 1.0]
    result["layout"] = "NCHW"
    return result


def _read_labels(path: Path) -> list[str]:
    if path.suffix == ".txt":
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    labels = _read_json(path)
    if isinstance(labels, dict):
        labels = [labels[key] for key in sorted(labels, key=int)]
    return [str(label) for label in labels]


def _license(readme: Path) -> str | None:
    """The licence in the front matter of a model card."""
    if not readme.is_file():
        return None
    text = readme.read_text("utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = front and re.search(r"^license:\s*(\S+)", front.group(1), re.MULTILINE)
    return found.group(1) if found else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidModelError(f"{path} is missing") from None
    except ValueError as error:
        raise InvalidModelError(f"{path} is not valid JSON ({error})") from None
