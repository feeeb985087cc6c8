import pytest

from webkiln.passes.fold_scale import fold_scale

ATTENTION = """g (float[1,N,8] x, float[8,8] wq, float[8] bq, float[8,8] wk, float s)
     => (float[1,2,N,N] y) {{
    heads = Constant<value_ints = [0, 0, 2, 4]>()
    q0 = MatMul(x, wq)
    q1 = Add(bq, q0)
    q2 = Reshape(q1, heads)
    q3 = Transpose<perm=[0,2,1,3]>(q2)
    k0 = MatMul(x, wk)
    k1 = Reshape(k0, heads)
    k2 = Transpose<perm=[0,2,3,1]>(k1)
    {}
}}"""


def weights(rng):
    return {
        "wq": rng.standard_normal((8, 8)),
        "bq": rng.standard_normal(8),
        "wk": rng.standard_normal((8, 8)),
        "s": 0.5,
    }


BEFORE = "Constant MatMul Add Reshape Transpose MatMul Reshape Transpose"


@pytest.mark.parametrize(
    "form",
    [
        "q4 = Mul(q3, s) y = MatMul(q4, k2)",
        "q4 = Div(q3, s) y = MatMul(q4, k2)",
        "p = MatMul(q3, k2) y = Mul(s, p)",
        "p = MatMul(q3, k2) y = Div(p, s)",
    ],
)
def test_the_scale_of_attention_goes_into_the_query_weights(check, rng, form):
    check(ATTENTION.format(form), fold_scale, BEFORE + " MatMul", weights(rng))


def test_a_dividend_is_no_factor(check, rng):
    form = "p = MatMul(q3, k2) y = Div(s, p)"
    check(ATTENTION.format(form), fold_scale, BEFORE + " MatMul Div", weights(rng))


def test_a_query_that_others_read_is_left(check, rng):
    text = """g (float[2,4] x, float[4,4] w, float s) => (float[2,4] y, float[2,4] z) {
        q = MatMul(x, w)
        z = Relu(q)
        y = Mul(q, s)
    }"""
    check(text, fold_scale, "MatMul Relu Mul", {"w": rng.standard_normal((4, 4)), "s": 0.5})


def test_a_factor_that_widens_the_shape_is_left(check, rng):
    text = """g (float[2,4] x, float[4,4] w, float[1,1,1] s) => (float[1,2,4] y) {
        q = MatMul(x, w)
        y = Mul(q, s)
    }"""
    weights = {"w": rng.standard_normal((4, 4)), "s": [[[0.5]]]}
    check(text, fold_scale, "MatMul Mul", weights)


def test_an_activation_is_not_passed(check, rng):
    text = """g (float[2,4] x, float[4,4] w, float s) => (float[2,4] y) {
        q = MatMul(x, w)
        r = Tanh(q)
        y = Mul(r, s)
    }"""
    check(text, fold_scale, "MatMul Tanh Mul", {"w": rng.standard_normal((4, 4)), "s": 0.5})
