import numpy as np
import pytest

from webkiln.passes.fold_affine import fold_affine


def batch_norm(rng, channels):
    return {
        "gamma": rng.standard_normal(channels),
        "beta": rng.standard_normal(channels),
        "mean": rng.standard_normal(channels),
        "var": rng.random(channels) + 0.5,
    }


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_goes_into_conv(check, rng, group):
    check(
        f"""g (float[1,4,6,6] x, float[4,{4 // group},3,3] w, float[4] gamma, float[4] beta,
               float[4] mean, float[4] var) => (float[1,4,4,4] y) {{
            c = Conv<group={group}>(x, w)
            y = BatchNormalization<epsilon=0.01>(c, gamma, beta, mean, var)
        }}""",
        fold_affine,
        "Conv",
        {"w": rng.standard_normal((4, 4 // group, 3, 3)), **batch_norm(rng, 4)},
    )


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_goes_into_transposed_conv(check, rng, group):
    check(
        f"""g (float[1,4,5,5] x, float[4,3,3,3] w, float[{3 * group}] b, float[{3 * group}] gamma,
               float[{3 * group}] beta, float[{3 * group}] mean, float[{3 * group}] var)
              => (float[1,{3 * group},7,7] y) {{
            c = ConvTranspose<group={group}>(x, w, b)
            y = BatchNormalization(c, gamma, beta, mean, var)
        }}""",
        fold_affine,
        "ConvTranspose",
        {
            "w": rng.standard_normal((4, 3, 3, 3)),
            "b": rng.standard_normal(3 * group),
            **batch_norm(rng, 3 * group),
        },
    )


def test_a_chain_of_scales_and_shifts_goes_into_conv(check, rng):
    check(
        """g (float[1,3,5] x, float[4,3,3] w, float[1,4,1] m, float a, float[4,1] d)
             => (float[1,4,3] y) {
            c = Conv(x, w)
            c1 = Mul(m, c)
            c2 = Add(c1, a)
            c3 = Sub(a, c2)
            c4 = Neg(c3)
            y = Div(c4, d)
        }""",
        fold_affine,
        "Conv",
        {
            "w": rng.standard_normal((4, 3, 3)),
            "m": rng.standard_normal((1, 4, 1)),
            "a": 0.7,
            "d": rng.random((4, 1)) + 0.5,
        },
    )


@pytest.mark.parametrize("transposed", [0, 1])
def test_scale_goes_into_gemm(check, rng, transposed):
    shape = (5, 4) if transposed else (4, 5)
    check(
        f"""g (float[2,4] x, float[{shape[0]},{shape[1]}] w, float[5] b, float[5] s)
             => (float[2,5] y) {{
            c = Gemm<transB={transposed}, alpha=0.5, beta=2.0>(x, w, b)
            d = Mul(c, s)
            y = Add(d, s)
        }}""",
        fold_affine,
        "Gemm",
        {
            "w": rng.standard_normal(shape),
            "b": rng.standard_normal(5),
            "s": rng.standard_normal(5),
        },
    )


def test_matmul_takes_a_scale_and_leaves_a_shift(check, rng):
    check(
        """g (float[2,N,4] x, float[4,5] w, float[5] s) => (float[2,N,5] y) {
            c = MatMul(x, w)
            d = Mul(c, s)
            y = Add(d, s)
        }""",
        fold_affine,
        "MatMul Add",
        {"w": rng.standard_normal((4, 5)), "s": rng.standard_normal(5)},
    )


@pytest.mark.parametrize(
    ("shape", "why"),
    [("1,1,4,4", "one number a place"), ("2,1,1,1", "one number an image, widening the output")],
)
def test_other_broadcasts_stay(check, rng, shape, why):
    size = [int(n) for n in shape.split(",")]
    check(
        f"""g (float[1,3,6,6] x, float[4,3,3,3] w, float[{shape}] s) => (float[N,4,4,4] y) {{
            c = Conv(x, w)
            y = Mul(c, s)
        }}""",
        fold_affine,
        "Conv Mul",
        {"w": rng.standard_normal((4, 3, 3, 3)), "s": rng.standard_normal(size)},
    )


def test_a_value_that_others_read_is_left(check, rng):
    check(
        """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[1,4,4,4] y, float[1,4,4,4] c) {
            c = Conv(x, w)
            y = Neg(c)
        }""",
        fold_affine,
        "Conv Neg",
        {"w": rng.standard_normal((4, 3, 3, 3))},
    )


def test_weights_shared_by_two_convs_are_folded_apart(check, rng):
    check(
        """g (float[1,3,6,6] x, float[4,3,3,3] w, float s) => (float[1,4,4,4] y, float[1,4,4,4] z) {
            c = Conv(x, w)
            y = Mul(c, s)
            z = Conv(x, w)
        }""",
        fold_affine,
        "Conv Conv",
        {"w": rng.standard_normal((4, 3, 3, 3)), "s": np.float32(3)},
    )
