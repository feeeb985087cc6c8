"""The sentences of `data/train.tsv` and `data/test.tsv`: a line has label, tab, sentence."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

# The order of the classifier's outputs.
LABELS = ("joy", "sadness", "anger", "fear", "love", "surprise")


def read(part: str) -> tuple[list[str], list[int]]:
    """Sentences and the indices of their labels, of the part "train" or "test"."""
    sentences, classes = [], []
    for line in (FOLDER / "data" / f"{part}.tsv").read_text("utf-8").splitlines():
        label, sentence = line.split("\t")
        sentences.append(sentence)
        classes.append(LABELS.index(label))
    return sentences, classes
