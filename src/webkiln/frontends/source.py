"""What every frontend yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

__all__ = ["Source"]


@dataclass
class Source:
    """A model as it came in, in the one vocabulary that the compiler speaks, and what came with it.

    `config` holds what a task needs beyond the graph; each key only where the source knows it:

    - ``labels``: list of class names by index; ``id2label``: the same as Hugging Face's config
    - ``preprocess``: how an image becomes the input (resize, crop, rescale, mean, std, layout)
    - ``pooling``, ``normalize``: how token vectors became one embedding
    - ``max``: upper bounds of symbolic dimensions that the weights themselves imply
    - ``generation``: a language model's ports (``ids``, ``position``, ``logits``; ``state`` or
      ``past``: each input of the cache to the output that continues it), its ``context`` and
      ``chunk`` in tokens, and ``eos``, ``bos``, ``add_bos``
    - ``tokens``: special tokens by role (bos, eos, …); ``chat_template``: Jinja; ``sampling``: what
      the model's makers recommend
    """

    model: ir.Model
    name: str
    task: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    assets: dict[str, bytes] = field(default_factory=dict)
    """Files that the application needs beside the graph, such as ``tokenizer.json``."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Where the weights are from and under which licence, as far as the source says."""
