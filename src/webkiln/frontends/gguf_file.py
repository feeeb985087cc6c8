"""Opens GGUF files through the `gguf` package and says clearly what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.ggml_types import SUPPORTED_TYPES

__all__ = ["GgufFile", "open_gguf"]

_AGAIN = "download or convert the file again"


class GgufFile:
    """A GGUF file whose tensors are all of supported types and wholly there."""

    def __init__(self, path: Path, reader: gguf.GGUFReader) -> None:
        self.path = path
        self.reader = reader
        self.tensors: Mapping[str, gguf.ReaderTensor] = {t.name: t for t in reader.tensors}
        self.architecture = self.text("general.architecture")

    def value(self, key: str) -> Any:
        """What the metadata say under `key` (``{arch}`` stands for the architecture), or None."""
        if "{arch}" in key:
            key = key.replace("{arch}", self.architecture)
        field = self.reader.fields.get(key)
        try:
            return None if field is None else field.contents()
        except UnicodeDecodeError as error:
            raise InvalidModelError(
                f"{self.path.name}: {key} holds a text that is none: {error}", hint=_AGAIN
            ) from None

    def metadata(self, prefix: str) -> dict[str, Any]:
        """All values whose keys begin with `prefix`."""
        return {key: self.value(key) for key in self.reader.fields if key.startswith(prefix)}

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._typed(key, str, default))

    def integer(self, key: str, default: int | None = None) -> int:
        """A number above 0. A list of one number a layer is fine if they are all the same."""
        value = self.value(key)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            value = value[0]
        if isinstance(value, list):
            raise UnsupportedModelError(
                f"{self.path.name}: {self._key(key)} differs from layer to layer",
                hint="export the model to ONNX and build from that",
            )
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._reject(key, value, "a number above 0")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._typed(key, int | float, default))

    def _typed(self, key: str, kind: Any, default: Any) -> Any:
        value = self.value(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind):
            self._reject(key, value, "a text" if kind is str else "a number")
        return value

    def _key(self, key: str) -> str:
        return key.replace("{arch}", self.architecture) if "{arch}" in key else key

    def _reject(self, key: str, value: Any, wanted: str) -> None:
        is_ = "lack" if value is None else f"say {value!r} for"
        raise InvalidModelError(
            f"{self.path.name}: the metadata {is_} {self._key(key)}, which should be {wanted}",
            hint="convert the model again",
        )


def open_gguf(path: Path) -> GgufFile:
    """Reads metadata and the list of tensors; their data stay on disk.

    Raises `InvalidModelError` for a file that is broken or truncated, `UnsupportedModelError` for
    tensor types that are not known, byte orders and split files.
    """
    try:
        reader = _Reader(path)
    except _TruncatedError as error:
        raise InvalidModelError(f"{path.name} is truncated: {error}", hint=_AGAIN) from None
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InvalidModelError(
            f"{path.name} is no valid GGUF file: {error}", hint=_AGAIN
        ) from error
    file = GgufFile(path, reader)
    parts = file.value("split.count")
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedModelError(
            f"{path.name} is one of {parts} parts of a model",
            hint="join them with llama.cpp's llama-gguf-split --merge",
        )
    return file


class _TruncatedError(Exception):
    """The file ends before what its header announces."""


class _Reader(gguf.GGUFReader):
    """The package's reader, which by itself reads past a short file's end without a word."""

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
    ) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise _TruncatedError(f"it ends at byte {len(self.data):,}, within its header")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[gguf.GGUFValueType]]:
        """Lists in one go: a vocabulary's 262,144 tokens take 13 s one by one."""
        array = gguf.GGUFValueType.ARRAY
        if raw_type != array or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        kind, count = gguf.GGUFValueType(head[0][0]), int(head[1][0])
        at = orig_offs + 12
        if kind == gguf.GGUFValueType.STRING:
            texts = self._texts(at, count)
            size = 8 * count + sum(text.size for text in texts)
            return 12 + size, head + texts, list(range(2, 2 + count)), [array, kind]
        if kind not in self.gguf_scalar_to_np:
            return super()._get_field_parts(orig_offs, raw_type)
        values = self._get(at, self.gguf_scalar_to_np[kind], count)
        return 12 + values.nbytes, [*head, values], [2], [array, kind]

    def _texts(self, at: int, count: int) -> list[NDArray[np.uint8]]:
        """`count` texts, each after its length in eight bytes."""
        data = np.asarray(self.data)  # slices of a memmap are slow to make
        sizes = data.data
        texts = []
        for _ in range(count):
            start = at + 8
            at = start + int.from_bytes(sizes[at:start], "little")
            if at > data.size:
                raise _TruncatedError(f"it ends at byte {data.size:,}, within its header")
            texts.append(data[start:at])
        return texts

    def _build_tensors(self, start_offs: int, fields: list[gguf.ReaderField]) -> None:
        if self.byte_order != "I":
            raise UnsupportedModelError(
                "the file is big-endian", hint="convert the model on a little-endian machine"
            )
        self._check_types(fields)
        for field in fields:
            _, name, _, dims, kind, offset = field.parts
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind[0])]
            count = int(np.prod([int(d) for d in dims], dtype=object))
            missing = start_offs + int(offset[0]) + count // block * size - len(self.data)
            if missing > 0:
                raise _TruncatedError(f"{missing:,} bytes of tensor {_text(name)!r} are missing")
        super()._build_tensors(start_offs, fields)

    def _check_types(self, fields: list[gguf.ReaderField]) -> None:
        known = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
        wrong: dict[str, list[str]] = {}
        for field in fields:
            number = int(field.parts[4][0])
            kind = known.get(number, f"number {number}")
            if kind not in SUPPORTED_TYPES:
                wrong.setdefault(kind, []).append(_text(field.parts[1]))
        if wrong:
            listed = ", ".join(
                f"{kind} ({names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
                for kind, names in wrong.items()
            )
            raise UnsupportedModelError(
                f"tensor types that are not supported: {listed}",
                hint=f"a file with tensors of types {', '.join(SUPPORTED_TYPES)}; "
                "llama.cpp's llama-quantize makes one",
            )


def _text(name: NDArray[np.uint8]) -> str:
    return bytes(name).decode("utf-8", "replace")
