"""Cases of Attention: heads, masks, past keys, what it shows of its scores."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case


def mask(*shape: int, empty: bool = False) -> np.ndarray:
    """A random mask in which every query sees a key, unless some are to see none."""
    allowed = np.random.default_rng(3).random(shape) < 0.6
    allowed[..., 0] = True
    if empty:
        allowed[..., 1, :] = False
    return allowed


def attention(
    inputs: list, tag: str, opset: int = 24, oracle: str = "onnxruntime", **kwargs
) -> Case:
    """Keyword arguments are attributes, but for `outputs` and `unused`."""
    more = {k: kwargs.pop(k) for k in ("outputs", "unused") if k in kwargs}
    return Case("Attention", inputs, kwargs, opset=opset, tag=tag, oracle=oracle, **more)


FOUR = ["f32[2,4,3,8]", "f32[2,4,5,8]", "f32[2,4,5,8]"]
SQUARE = ["f32[2,4,5,8]", "f32[2,2,5,8]", "f32[2,2,5,8]"]
THREE = ["f32[2,3,32]", "f32[2,5,16]", "f32[2,5,8]"]
HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
PAST = ["f32[2,2,4,8]", "f32[2,2,4,8]"]

CASES = [
    attention(FOUR, "four axes"),
    attention(FOUR, "opset 23", 23),
    attention(["f32[1,2,n=6,8]"] * 3, "symbolic"),
    attention(["f32[1,3,n=6,16]", "f32[1,1,m=9,16]", "f32[1,1,m=9,16]"], "both symbolic"),
    attention(["f32[1,2,5,7]", "f32[1,2,6,7]", "f32[1,2,6,3]"], "odd sizes"),
    attention(["f32[1,2,140,32]", "f32[1,2,140,32]", "f32[1,2,140,32]"], "long"),
    attention(THREE, "three axes", **HEADS),
    attention(["f32[1,3,8]", "f32[1,3,8]", "f32[1,3,6]"], "odd heads",
              q_num_heads=2, kv_num_heads=2),
    attention(SQUARE, "causal", is_causal=1),
    attention(SQUARE, "scale and cap", scale=0.7, softcap=1.5),
    attention([*FOUR, mask(3, 5)], "allowed"),
    attention([*FOUR, mask(2, 1, 3, 5)], "allowed by batch"),
    attention([*FOUR, mask(2, 4, 3, 5, empty=True)], "nothing allowed", oracle="reference"),
    attention([*FOUR, "f32[3,5]"], "bias"),
    attention([*FOUR, "f32[2,1,3,5]"], "bias by batch"),
    attention([*SQUARE, "f32[5,5]"], "bias and causal", is_causal=1),
    attention([*FOUR, mask(3, 4)], "short mask", oracle="reference"),
    attention(
        [*SQUARE[:1], *SQUARE[1:], None, *PAST], "past", outputs=3, is_causal=1, oracle="reference"
    ),
    attention([*THREE, mask(3, 9), "f32[2,2,4,8]", "f32[2,2,4,4]"], "past of three axes",
              outputs=3, **HEADS),
    attention([*SQUARE, None, None, None, np.array([3, 5])], "lengths"),
    attention([*SQUARE, None, None, None, np.array([3, 5])], "lengths and causal",
              is_causal=1, oracle="reference"),
    *(
        attention([*FOUR, mask(3, 5)], f"scores {mode}", outputs=4, unused=(1, 2),
                  softcap=2.0 if mode else 0.0,
                  qk_matmul_output_mode=mode, oracle="reference")
        for mode in range(4)
    ),
    attention(SQUARE, "window", 25, oracle="reference",
              is_causal=1, left_window_size=2, right_window_size=0),
]  # fmt: skip
