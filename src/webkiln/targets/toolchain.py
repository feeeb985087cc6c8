"""C to WebAssembly, through the clang that comes in the `ziglang` wheel.

The flags are explained in wasm_runtime.h. A module is compiled once: results are kept by
the hash of all that determines them (source, header, flags, compiler version).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from webkiln.errors import ToolchainError
from webkiln.log import Progress, debug, silent
from webkiln.targets.wasm_module import read_module

__all__ = [
    "PAGE",
    "PLANES_VARIANTS",
    "STATIC_END",
    "VARIANTS",
    "Variant",
    "cache_folder",
    "compile_variants",
    "compile_wasm",
]

PAGE = 65536  # a WebAssembly memory page
STATIC_BASE = 1536  # below it are the words of wasm_runtime.h
STATIC_END = PAGE  # static data ends before the thread stacks begin
HEADER = Path(__file__).with_name("wasm_runtime.h")
_WORKERS = 2  # clang takes some hundred MB on a large module
_TIMEOUT = 900  # seconds; a module takes a few, so this only ends a compiler that hangs


@dataclass(frozen=True, slots=True)
class Variant:
    """One build of the module, for engines that have `features`: names of wasm-feature-detect, and
    `narrow-dot` for engines whose dot product of four bytes goes through sums of 16 bits.
    """

    name: str
    features: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file in the bundle."""
        return f"{self.name}.wasm"

    @property
    def threads(self) -> bool:
        """Whether its memory is shared among threads."""
        return "threads" in self.features

    @property
    def relaxed(self) -> bool:
        """Whether it may use relaxed SIMD: fused multiply-add, dot products of bytes."""
        return "relaxed-simd" in self.features

    @property
    def narrow(self) -> bool:
        """Whether products of bytes are added up in 16 bits as far as they fit."""
        return "narrow-dot" in self.features


#: best first: the loader takes the first whose features the engine has.
VARIANTS = (
    Variant("simd-relaxed-threads", ("simd", "relaxed-simd", "threads")),
    Variant("simd-threads", ("simd", "threads")),
    Variant("simd-relaxed", ("simd", "relaxed-simd")),
    Variant("simd", ("simd",)),
)

#: the same for modules that multiply planes of bytes, which engines may do in two ways
#: (docs/decisions/010)
PLANES_VARIANTS = (
    Variant("simd-relaxed-narrow-threads", ("simd", "relaxed-simd", "narrow-dot", "threads")),
    *VARIANTS[:2],
    Variant("simd-relaxed-narrow", ("simd", "relaxed-simd", "narrow-dot")),
    *VARIANTS[2:],
)

_COMPILE = (
    *("-target", "wasm32-freestanding", "-std=gnu11", "-O3", "-nostdlib"),
    *("-fno-math-errno", "-fno-sanitize=undefined", "-fno-stack-protector"),
    *("-Wall", "-Wextra", "-Werror"),
    # printed kernels take arguments that only some schedules need
    *("-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unused-variable"),
    "-Wno-unused-but-set-variable",
)
_LINK = (
    "no-entry",
    "import-memory",
    f"global-base={STATIC_BASE}",
    "strip-all",
    "export=__stack_pointer",
)


def cache_folder() -> Path:
    """Where compiled modules are kept: `$WEBKILN_CACHE`, or `webkiln` in the user's caches."""
    if chosen := os.environ.get("WEBKILN_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser().absolute() / "webkiln"


def compile_wasm(source: str, variant: Variant, memory: int, *, cache: Path | None = None) -> bytes:
    """The module that C `source` (which includes wasm_runtime.h) becomes for `variant`.

    `memory` is the size in bytes of the memory that it imports, a multiple of 64 KiB. `cache` is
    where modules are kept (default `cache_folder()`). Raises `ToolchainError` with the compiler's
    message, and for a module that imports anything but `env.memory`, lacks an export of the ABI or
    has more static data than fits.
    """
    debug(4, source)
    return _compile(source, variant, memory, cache or cache_folder())


def compile_variants(
    source: str,
    memory: int,
    variants: Sequence[Variant] = VARIANTS,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> dict[Variant, bytes]:
    """`compile_wasm` for each of `variants`, two at a time; `progress` counts those done."""
    debug(4, source)
    folder = cache or cache_folder()
    stage = "compile WebAssembly"
    progress(stage, 0, len(variants))
    with ThreadPoolExecutor(_WORKERS) as pool:
        jobs = {pool.submit(_compile, source, v, memory, folder): v for v in variants}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                progress(stage, done, len(variants), jobs[job].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one failure, or Ctrl-C, is enough
            raise
    return {variant: job.result() for job, variant in jobs.items()}


def _flags(variant: Variant, memory: int) -> list[str]:
    cpu = "generic+simd128+bulk_memory+nontrapping_fptoint"
    link = [*_LINK, f"initial-memory={memory}", f"max-memory={memory}", "export=__data_end"]
    flags = list(_COMPILE)
    if variant.relaxed:
        cpu += "+relaxed_simd"
        # a·b + c may be one instruction, and is on every engine that has it (relaxed_madd)
        flags += ["-DWEBKILN_RELAXED_SIMD", "-ffp-contract=fast"]
    if variant.narrow:
        flags.append("-DWEBKILN_NARROW_DOT")
    if variant.threads:
        cpu += "+atomics"
        flags.append("-DWEBKILN_THREADS")
        link.append("shared-memory")
    flags.append(f"-mcpu={cpu}")
    flags += [f"-Wl,--{option}" for option in link]
    return [*flags, f"-Wl,-z,stack-size={STATIC_BASE}"]


@lru_cache(maxsize=1)
def _compiler_version() -> str:
    try:
        return metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        raise ToolchainError(
            "the C compiler (the ziglang package) is not installed",
            hint="pip install ziglang",
        ) from None


def _key(source: str, flags: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in (_compiler_version(), *flags, HEADER.read_text(encoding="utf-8"), source):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _compile(source: str, variant: Variant, memory: int, cache: Path) -> bytes:
    if memory % PAGE or not 0 < memory <= 1 << 32:
        raise ValueError(f"{memory} bytes are no WebAssembly memory: a multiple of 65536, ≤ 4 GiB")
    flags = _flags(variant, memory)
    kept = cache / "wasm" / f"{_key(source, flags)}.wasm"
    try:
        module = kept.read_bytes()
        _check(module, variant)
        return module
    except (OSError, ToolchainError):  # not there yet, or damaged
        pass
    module = _run_compiler(source, flags, cache)
    _check(module, variant)
    _write_atomically(kept, module)
    return module


def _run_compiler(source: str, flags: Sequence[str], cache: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="webkiln-") as folder:
        c, wasm = Path(folder, "module.c"), Path(folder, "module.wasm")
        c.write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", *flags, f"-I{HEADER.parent}"]
        # zig's own cache would grow by every module; in the temporary folder it goes with it.
        zig = {"ZIG_LOCAL_CACHE_DIR": folder, "ZIG_GLOBAL_CACHE_DIR": folder}
        try:
            done = subprocess.run(
                [*command, str(c), "-o", str(wasm)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                env=os.environ | zig,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(
                f"the C compiler could not be run: {error}",
                hint="pip install --force-reinstall ziglang",
            ) from error
        if done.returncode != 0 or not wasm.exists():
            raise _failure(source, done.stderr or done.stdout, folder, cache)
        return wasm.read_bytes()


def _failure(source: str, message: str, folder: str, cache: Path) -> ToolchainError:
    """The compiler's first lines, and the source kept where they point to."""
    kept = cache / "failed" / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.c"
    _write_atomically(kept, source.encode())
    lines = message.strip().replace(str(Path(folder, "module.c")), kept.name).splitlines()
    shown = "\n  ".join(lines[:12]) or "no message"
    return ToolchainError(
        f"the generated C does not compile:\n  {shown}",
        hint=f"this is a bug in webkiln; please report it with {kept}",
    )


def _check(module: bytes, variant: Variant) -> None:
    """Refuse a module that does not keep the ABI of docs/plan.md."""
    try:
        info = read_module(module)
    except ValueError as error:
        raise ToolchainError(f"the compiled {variant.file} is damaged: {error}") from None
    strangers = [name for name in info.imports if name != "env.memory"]
    if strangers:
        raise ToolchainError(
            f"the generated C calls what no browser gives: {', '.join(strangers)}",
            hint="this is a bug in webkiln; please report it with the model",
        )
    wanted = {"run", "step", "__stack_pointer"} | ({"serve", "stop"} if variant.threads else set())
    if missing := wanted - info.exports.keys():
        raise ToolchainError(f"the compiled {variant.file} lacks {', '.join(sorted(missing))}")
    if (end := info.globals["__data_end"]) > STATIC_END:
        raise ToolchainError(
            f"the generated C has {end - STATIC_BASE} bytes of static data, "
            f"{STATIC_END - STATIC_BASE} fit",
            hint="this is a bug in webkiln; please report it with the model",
        )


def _write_atomically(path: Path, data: bytes) -> None:
    """A cache that can't be written costs time, not results: only told to those who debug."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        debug(1, f"webkiln: not cached: {error}")
