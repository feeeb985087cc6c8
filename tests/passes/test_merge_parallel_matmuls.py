import numpy as np

from webkiln.passes.merge_parallel_matmuls import merge_parallel_matmuls


def test_query_key_and_value_become_one_product(check, rng):
    result = check(
        """g (float[1,N,8] x, float[8,8] wq, float[8,4] wk, float[8,4] wv, float[8] bq, float[4] bk,
               float[1,4] bv) => (float[1,N,8] q, float[1,N,4] k, float[1,N,4] v) {
            q0 = MatMul(x, wq)
            q = Add(q0, bq)
            k0 = MatMul(x, wk)
            k = Add(bk, k0)
            v0 = MatMul(x, wv)
            v = Add(v0, bv)
        }""",
        dead_code_too(merge_parallel_matmuls),
        "MatMul Add Split",
        {
            "wq": rng.standard_normal((8, 8)),
            "wk": rng.standard_normal((8, 4)),
            "wv": rng.standard_normal((8, 4)),
            "bq": rng.standard_normal(8),
            "bk": rng.standard_normal(4),
            "bv": rng.standard_normal((1, 4)),
        },
    )
    assert [str(dim) for dim in result.graph.node(2).outputs[0].shape] == ["1", "N", "8"]


def test_without_a_bias_everywhere_the_biases_stay(check, rng):
    check(
        """g (float[3,8] x, float[8,8] a, float[8,4] b, float[8] c)
             => (float[3,8] y, float[3,4] z) {
            y0 = MatMul(x, a)
            z = MatMul(x, b)
            y = Add(y0, c)
        }""",
        dead_code_too(merge_parallel_matmuls),
        "MatMul Split Add",
        {
            "a": rng.standard_normal((8, 8)),
            "b": rng.standard_normal((8, 4)),
            "c": rng.standard_normal(8),
        },
    )


def test_other_inputs_and_batched_weights_stay(check, rng):
    check(
        """g (float[2,3,8] x, float[2,3,8] u, float[8,8] a, float[2,8,4] b)
             => (float[2,3,8] y, float[2,3,4] z, float[2,3,8] t) {
            y = MatMul(x, a)
            z = MatMul(x, b)
            t = MatMul(u, a)
        }""",
        merge_parallel_matmuls,
        "MatMul MatMul MatMul",
        {"a": rng.standard_normal((8, 8)), "b": rng.standard_normal((2, 8, 4))},
    )


def test_the_merged_weight_is_the_weights_side_by_side(check, rng):
    a, b = rng.standard_normal((8, 2)), rng.standard_normal((8, 3))
    result = check(
        """g (float[3,8] x, float[8,2] a, float[8,3] b) => (float[3,2] y, float[3,3] z) {
            y = MatMul(x, a)
            z = MatMul(x, b)
        }""",
        dead_code_too(merge_parallel_matmuls),
        "MatMul Split",
        {"a": a, "b": b},
    )
    merged = result.graph.node(0).inputs[1].const_value.numpy()
    np.testing.assert_array_equal(merged, np.concatenate([a, b], 1).astype(np.float32))


def dead_code_too(step):
    from webkiln.passes.remove_duplicates import remove_duplicates

    return lambda model: remove_duplicates(step(model))
