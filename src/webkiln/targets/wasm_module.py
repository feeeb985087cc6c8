"""Reads what the build must know of a WebAssembly module: its imports, exports and globals.

The binary format is section 5 of the WebAssembly core specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["ModuleInfo", "read_module"]

MAGIC = b"\0asm\1\0\0\0"
_IMPORT, _GLOBAL, _EXPORT = 2, 6, 7
_KINDS = ("function", "table", "memory", "global", "tag")
_I32_CONST = 0x41


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """Imports as `module.name`, exports as name → kind, exported i32 globals with their value."""

    imports: tuple[str, ...]
    exports: dict[str, str]
    globals: dict[str, int]


class _Reader:
    def __init__(self, data: bytes, start: int = 0) -> None:
        self.data, self.at = data, start

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self) -> int:
        """A LEB128 number."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    def signed(self) -> int:
        start = self.at
        value = self.unsigned()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def name(self) -> str:
        size = self.unsigned()
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def limits(self) -> None:
        flags = self.byte()
        self.unsigned()
        if flags & 1:
            self.unsigned()


def read_module(data: bytes) -> ModuleInfo:
    """What `data` imports and exports. Raises `ValueError` when it is no WebAssembly module."""
    if data[:8] != MAGIC:
        raise ValueError("not a WebAssembly module")
    try:
        sections = dict(_sections(data))
        imports, imported_globals = _imports(sections.get(_IMPORT))
        values = [None] * imported_globals + _globals(sections.get(_GLOBAL))
        exports: dict[str, str] = {}
        constants: dict[str, int] = {}
        for name, kind, index in _exports(sections.get(_EXPORT)):
            exports[name] = kind
            if kind == "global" and (value := values[index]) is not None:
                constants[name] = value
    except IndexError:
        raise ValueError("truncated WebAssembly module") from None
    return ModuleInfo(imports, exports, constants)


def _sections(data: bytes) -> Iterator[tuple[int, _Reader]]:
    reader = _Reader(data, 8)
    while reader.at < len(data):
        kind, size = reader.byte(), reader.unsigned()
        yield kind, _Reader(data, reader.at)
        reader.at += size
    if reader.at != len(data):
        raise IndexError


def _imports(reader: _Reader | None) -> tuple[tuple[str, ...], int]:
    if reader is None:
        return (), 0
    names, global_count = [], 0
    for _ in range(reader.unsigned()):
        names.append(f"{reader.name()}.{reader.name()}")
        kind = _KINDS[reader.byte()]
        if kind == "function":
            reader.unsigned()
        elif kind == "table":
            reader.byte()
            reader.limits()
        elif kind == "memory":
            reader.limits()
        else:
            global_count += kind == "global"
            reader.byte()
            reader.unsigned()
    return tuple(names), global_count


def _globals(reader: _Reader | None) -> list[int | None]:
    """First values; None from the first on that is not an i32.const, which none of ours is."""
    values: list[int | None] = []
    if reader is None:
        return values
    count = reader.unsigned()
    for _ in range(count):
        reader.byte()  # value type
        reader.byte()  # mutability
        if reader.byte() != _I32_CONST:
            break
        values.append(reader.signed())
        reader.byte()  # end
    return values + [None] * (count - len(values))


def _exports(reader: _Reader | None) -> Iterator[tuple[str, str, int]]:
    for _ in range(reader.unsigned() if reader else 0):
        assert reader is not None
        yield reader.name(), _KINDS[reader.byte()], reader.unsigned()
