"""Train the emotion classifier of the gallery and report how good it is.

    python -m examples.emotion.train

Writes `head.safetensors` (a linear layer over all-MiniLM-L6-v2's embedding) beside this file, and
the measured figures into docs/emotion.md. The test part is read only after the head is finished.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.emotion import data, logistic, report
from examples.emotion.encoder import encoder
from webkiln.frontends.head import Head, write_head

HEAD = data.FOLDER / "head.safetensors"
DOCS = Path(__file__).parents[2] / "docs" / "emotion.md"

L2_CANDIDATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)


def train(l2: float | None = None) -> tuple[Head, dict[float, tuple[float, float]]]:
    """The head, trained on the train part with `l2` or with the best by cross-validation.

    Also the cross-validation's accuracy and log loss of each candidate (empty if `l2` was given).
    """
    source = encoder()
    x = report.embeddings("train").astype(np.float64)
    y = np.array(data.read("train")[1])
    scores: dict[float, tuple[float, float]] = {}
    if l2 is None:
        l2, scores = logistic.choose_l2(x, y, len(data.LABELS), L2_CANDIDATES)
    weight, bias = logistic.fit(x, y, len(data.LABELS), l2)
    head = Head(
        weight.astype(np.float32),
        bias.astype(np.float32),
        data.LABELS,
        pooling=source.config["pooling"],
        normalize=source.config["normalize"],
        name="emotion",
        encoder="all-MiniLM-L6-v2",
        license="Apache-2.0",
    )
    return head, scores


def main() -> None:
    head, scores = train()
    write_head(head, HEAD)
    text = report.render(head, scores)
    report.insert(DOCS, text)
    print(text)


if __name__ == "__main__":
    main()
