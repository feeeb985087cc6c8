"""Attention in small nodes becomes one operator; what only looks like it is left."""

import re

import pytest

from webkiln.passes.fuse_attention import fuse_attention
from webkiln.passes.graph import attribute


def graph(scores: str, last: str, inputs: str = "") -> str:
    return f"""g (float[1,2,N,8] q, float[1,2,8,M] k, float[1,2,M,4] v{inputs})
        => (float[1,2,N,4] y) {{
        p = MatMul(q, k) {scores} w = Softmax<axis=-1>({last}) y = MatMul(w, v)
    }}"""


def scale(model) -> float:
    (found,) = [attribute(n, "scale") for n in model.graph if n.op_type == "Attention"]
    return found


def test_the_plain_form(check):
    model = check(graph("", "p"), fuse_attention, "Transpose Attention")
    assert scale(model) == 1.0  # without one the operator divides by a root


@pytest.mark.parametrize(
    ("scores", "c", "expected"),
    [
        ("s = Mul(p, c)", 0.25, 0.25),
        ("s = Mul(c, p)", 0.25, 0.25),
        ("s = Div(p, c)", 4.0, 0.25),
        ("r = Mul(p, c) s = Div(r, c)", 3.0, 1.0),
    ],
)
def test_a_scale(check, scores, c, expected):
    text = graph(scores, "s", ", float c")
    model = check(text, fuse_attention, "Transpose Attention", {"c": c})
    assert scale(model) == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["1,1,1,M", "1,1,N,M", "2,N,M", "M", "1,2,N,M"])
@pytest.mark.parametrize("add", ["Add(b, p)", "Add(p, b)"])
def test_a_bias_that_broadcasts(check, shape, add):
    text = graph(f"s = {add}", "s", f", float[{shape}] b")
    check(text, fuse_attention, "Transpose Attention")


def test_two_biases_and_a_scale_below_them(check):
    scores = "s = Mul(p, c) t = Add(s, b) u = Add(t, m)"
    text = graph(scores, "u", ", float c, float[2,N,M] b, float[1,1,1,M] m")
    assert scale(check(text, fuse_attention, "Transpose Add Attention", {"c": 0.5})) == 0.5


def test_heads_without_a_batch(check):
    text = """g (float[2,N,8] q, float[2,8,M] k, float[2,M,4] v, float[1,N,M] b)
        => (float[2,N,4] y) {
        p = MatMul(q, k) s = Add(p, b) w = Softmax<axis=2>(s) y = MatMul(w, v)
    }"""
    after = "Transpose Unsqueeze Unsqueeze Unsqueeze Attention Squeeze"
    check(text, fuse_attention, after)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            graph("s = Add(p, b)", "s", ", float[3,2,N,M] b").replace("=> (float[1", "=> (float[3"),
            id="a bias that widens the scores",
        ),
        pytest.param(graph("s = Add(p, b)", "s", ", float[N,1] b"), id="a bias of one column"),
        pytest.param(graph("s = Add(p, b)", "s", ", float b"), id="a bias of one number"),
        pytest.param(graph("s = Add(p, p)", "s"), id="a product that is read twice"),
        pytest.param(
            graph("t = Add(p, b) s = Mul(t, c)", "s", ", float[N,M] b, float c"),
            id="a bias that is scaled",
        ),
        pytest.param(graph("s = Div(c, p)", "s", ", float c"), id="a divisor"),
        pytest.param(graph("s = Mul(p, minus)", "s", ", float minus"), id="a negative scale"),
        pytest.param(graph("", "p").replace("axis=-1", "axis=2"), id="another axis"),
        pytest.param(
            graph("", "p").replace("float[1,2,N,4] y)", "float[1,2,N,4] y, float[1,2,N,M] w)"),
            id="weights that are an output",
        ),
        pytest.param(
            graph("", "p").replace("N,8] q", "N,6] q").replace("8,M] k", "6,M] k"),
            id="heads of six",
        ),
        pytest.param(graph("", "p").replace("[1,2,M,4] v", "[2,M,4] v"), id="values without batch"),
    ],
)
def test_what_is_no_attention_of_this_form_is_left(check, text):
    weights = {name: c for name, c in {"c": 0.5, "minus": -0.5}.items() if f"float {name}" in text}
    operators = re.findall(r"([A-Z]\w+)[(<]", text)
    check(text, fuse_attention, " ".join(operators), weights)
