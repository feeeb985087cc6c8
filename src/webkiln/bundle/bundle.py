"""`Bundle`: what `webkiln.build` returns and what a folder on disk is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from numpy.typing import ArrayLike, NDArray

from webkiln.bundle.edge import bind
from webkiln.bundle.golden import OutputCheck, compare, read_golden
from webkiln.bundle.plan import AssetPlan, Plan, validate
from webkiln.bundle.runner import StepTime, WasmRunner, choose_variant
from webkiln.errors import InputError, InvalidModelError, ShardError
from webkiln.output import atomic_folder

if TYPE_CHECKING:
    from webkiln.generation import Answer, CausalModel, Chat, Options, Prompt

__all__ = ["Bundle", "Data"]

Data = bytes | memoryview
MODEL = "model"
PLAN = f"{MODEL}/plan.json"
_AGAIN = "copy the whole folder again, or build it again"


class Bundle:
    """A compiled model: a plan, kernels, weights and the app around them.

        bundle = webkiln.build("model.onnx")        # or Bundle.load("dist/")
        bundle.run({"x": array})                    # {"logits": array}
        bundle.save("dist/")

    `files` maps paths inside the folder (with `/`) to their bytes; those of a loaded bundle are
    read when they are looked at.
    """

    def __init__(self, files: Mapping[str, Data]) -> None:
        """Raises `InvalidModelError` when `model/plan.json` is missing or not a plan."""
        self.files = files
        if PLAN not in files:
            raise InvalidModelError(
                f"there is no {PLAN}, so this is not a bundle",
                hint="`webkiln build MODEL -o DIR` makes one",
            )
        try:
            document = json.loads(bytes(files[PLAN]))
        except ValueError as error:
            raise InvalidModelError(f"{PLAN} is not JSON: {error}", hint=_AGAIN) from None
        self.plan: Plan = validate(document)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """The bundle in folder `path`, its files checked against the plan's sizes and hashes.

        Raises `InvalidModelError` when it is no bundle, `ShardError` for a missing or damaged file.
        """
        folder = Path(path)
        try:
            bundle = cls(_Folder(folder))
        except InvalidModelError as error:
            raise InvalidModelError(f"{folder}: {error.message}", hint=error.hint) from None
        for asset in bundle._assets():
            bundle._verify(folder, asset)
        for file in {golden["file"] for golden in bundle.plan["golden"]}:
            if f"{MODEL}/{file}" not in bundle.files:
                raise ShardError(f"{folder / MODEL / file} is missing", hint=_AGAIN)
        return bundle

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the folder, all at once or not at all; an older bundle there is replaced.

        Raises `OutputFolderError` when `path` holds anything else or can't be written.
        """
        with atomic_folder(path) as folder:
            for name, data in self.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        return Path(path)

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        program: str | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run the bundle's own WebAssembly on one thread; outputs by name.

        `program` is by name, by default the first. Symbolic dimensions are read off the inputs'
        shapes; `dims` gives those that no input shows. Raises `InputError` for a wrong name, dtype
        or shape.
        """
        index = self._program(program)
        arrays, bound = bind(self.plan, self.plan["programs"][index], inputs, dims)
        return self._runner.run(index, arrays, bound)

    @overload
    def generate(
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[Options]
    ) -> Answer: ...
    @overload
    def generate(
        self, prompt: Prompt, *, stream: Literal[False] = ..., **options: Unpack[Options]
    ) -> str: ...
    def generate(
        self, prompt: Prompt, *, stream: bool = False, **options: Unpack[Options]
    ) -> str | Answer:
        """What a language model says: the continuation of a text, or the answer to messages.

            bundle.generate("Once upon a time", max_tokens=50)
            for piece in bundle.generate([{"role": "user", "content": "Hi"}], stream=True): …

        `stream` yields the text piece by piece; `webkiln.generation.Options` has the options.
        Raises `InputError` for another task's bundle or an option that is not valid,
        `PromptTooLongError`, `ContextFullError`, `ChatTemplateError`.
        """
        from webkiln.generation import Answer

        answer = Answer(self.language_model, prompt, options)
        return answer if stream else "".join(answer)

    def chat(self, system: str | None = None, **options: Unpack[Options]) -> Chat:
        """A conversation with a language model: `bundle.chat().send("Hi")`.

        `system` says who it is to be; `options` as in `generate`.
        """
        from webkiln.generation import Chat

        return Chat(self.language_model, system, **options)

    @cached_property
    def language_model(self) -> CausalModel:
        """Token ids, logits and the cache of a language model's bundle.

        Raises `InputError` for a bundle of another task.
        """
        from webkiln.generation import CausalModel

        def read(name: str) -> bytes:
            try:
                return bytes(self.files[f"{MODEL}/{name}"])
            except KeyError:
                raise ShardError(f"{MODEL}/{name} is missing", hint=_AGAIN) from None

        def run(program: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return self.run(inputs, program=program)

        return CausalModel(self.plan, run, read)

    def check(self, rtol: float | None = None, atol: float | None = None) -> list[OutputCheck]:
        """Replay the golden samples; an `OutputCheck` for each output of each, in order.

        Tolerances default to those that the build chose.
        """
        checks = []
        for number, entry in enumerate(self.plan["golden"]):
            sample = read_golden(entry, self.files[f"{MODEL}/{entry['file']}"])
            limits = (
                sample.rtol if rtol is None else rtol,
                sample.atol if atol is None else atol,
            )
            outputs = self.run(sample.inputs, dims=entry["dims"])
            checks += [
                compare(number, name, outputs[name], expected, *limits)
                for name, expected in sample.outputs.items()
            ]
        return checks

    def profile(
        self,
        inputs: Mapping[str, ArrayLike] | None = None,
        *,
        program: str | None = None,
        dims: Mapping[str, int] | None = None,
        repeats: int = 5,
    ) -> list[StepTime]:
        """Median time of every step on one thread, on `inputs` or on the first golden sample."""
        index = self._program(program)
        if inputs is None:
            if not self.plan["golden"]:
                raise InputError("the bundle has no golden sample", hint="give inputs")
            entry = self.plan["golden"][0]
            inputs = read_golden(entry, self.files[f"{MODEL}/{entry['file']}"]).inputs
            dims = entry["dims"] | dict(dims or {})
        arrays, bound = bind(self.plan, self.plan["programs"][index], inputs, dims)
        return self._runner.profile(index, arrays, bound, repeats)

    def __repr__(self) -> str:
        task, size = self.plan["task"]["name"], self.plan["weights"]["bytes"] / 1e6
        return f"<Bundle {self.plan['name']}: {task}, {size:.1f} MB of weights>"

    @cached_property
    def _runner(self) -> WasmRunner:
        variant = choose_variant(self.plan)
        shards = (
            (shard["offset"], self.files[f"{MODEL}/{shard['file']}"])
            for shard in self.plan["weights"]["shards"]
        )
        return WasmRunner(self.plan, bytes(self.files[f"{MODEL}/{variant['file']}"]), shards)

    def _program(self, name: str | None) -> int:
        names = [p["name"] for p in self.plan["programs"]]
        if name is None:
            return 0
        if name not in names:
            raise InputError(
                f"the model has no program {name!r}", hint=f"it has: {', '.join(names)}"
            )
        return names.index(name)

    def _assets(self) -> Iterator[AssetPlan]:
        yield from self.plan["weights"]["shards"]
        if self.plan["wasm"] is not None:
            yield from self.plan["wasm"]["variants"]
        if self.plan["webgpu"] is not None:
            yield from self.plan["webgpu"]["variants"]

    def _verify(self, folder: Path, asset: AssetPlan) -> None:
        path = folder / MODEL / asset["file"]
        data = self.files.get(f"{MODEL}/{asset['file']}")
        if data is None:
            raise ShardError(f"{path} is missing", hint=_AGAIN)
        if len(data) != asset["bytes"]:
            raise ShardError(
                f"{path} has {len(data)} bytes, the plan says {asset['bytes']}", hint=_AGAIN
            )
        if hashlib.sha256(data).hexdigest() != asset["sha256"]:
            raise ShardError(f"{path} is damaged: its SHA-256 is not the plan's", hint=_AGAIN)


class _Folder(Mapping[str, Data]):
    """The files of a folder by relative path, read when looked up."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, name: str) -> Data:
        try:
            return (self.root / PurePosixPath(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(name) from None
        except OSError as error:
            raise ShardError(
                f"{self.root / name} can't be read: {error.strerror}", hint=_AGAIN
            ) from error

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self.root / PurePosixPath(name)).is_file()

    def __iter__(self) -> Iterator[str]:
        files = sorted(p for p in self.root.rglob("*") if p.is_file())
        return (p.relative_to(self.root).as_posix() for p in files)

    def __len__(self) -> int:
        return sum(1 for _ in self)
