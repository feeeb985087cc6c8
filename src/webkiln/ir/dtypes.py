"""Element types of the kernel IR, and how model types are stored.

A buffer holds one of the storage types below. Model types that no GPU can store (int64, bool,
float64, …) are narrowed at the model's edge; `STORAGE` is the one table that says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BOOL",
    "F16",
    "F32",
    "I8",
    "I32",
    "STORAGE",
    "U8",
    "U32",
    "DType",
    "by_name",
]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: NumPy name, bytes, kind (`f`, `i`, `u` or `b`), and SIMD lanes."""

    name: str
    bytes: int
    kind: str
    lanes: int = 1

    def vector(self, lanes: int) -> DType:
        """The same element type, `lanes` at once."""
        return DType(self.name, self.bytes, self.kind, lanes)

    @property
    def scalar(self) -> DType:
        """The element type, one at a time."""
        return self.vector(1)

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point type."""
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        """Whether it is an integer type, signed or not."""
        return self.kind in "iu"

    def __repr__(self) -> str:
        return self.name if self.lanes == 1 else f"{self.name}x{self.lanes}"


F32: Final = DType("float32", 4, "f")
F16: Final = DType("float16", 2, "f")
I32: Final = DType("int32", 4, "i")
U32: Final = DType("uint32", 4, "u")
I8: Final = DType("int8", 1, "i")
U8: Final = DType("uint8", 1, "u")
BOOL: Final = DType("bool", 4, "b")  # an expression's type only: stored as int32 0 or 1

_BY_NAME: Final = {t.name: t for t in (F32, F16, I32, U32, I8, U8, BOOL)}

# ONNX dtype (NumPy name) → storage type. WebGPU has neither 64-bit integers nor bytes as elements.
STORAGE: Final[dict[str, DType]] = {
    "float32": F32,
    "float64": F32,
    "float16": F32,
    "bfloat16": F32,
    "int64": I32,
    "int32": I32,
    "int16": I32,
    "int8": I32,
    "uint16": I32,
    "uint8": I32,
    "bool": I32,
    "uint32": U32,
    "uint64": U32,
}


def by_name(name: str) -> DType:
    """The storage type called `name`; raises `KeyError` for any other name."""
    return _BY_NAME[name]
