"""What the model card says of the classifier, measured: accuracy, confusion, errors, duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.emotion import data
from examples.emotion.encoder import encoder, run_text
from examples.emotion.logistic import log_softmax
from webkiln.frontends.head import Head, with_head

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
ERRORS_SHOWN = 12


@dataclass(frozen=True)
class Evaluation:
    """The test part: true classes [n] and the predicted probabilities [n, classes]."""

    sentences: list[str]
    truth: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.truth).mean())

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts [truth, prediction]."""
        counts = np.zeros((len(data.LABELS),) * 2, np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts


def evaluate(head: Head) -> Evaluation:
    """Run the whole classifier (encoder and head in one graph) over the test part."""
    sentences, truth = data.read("test")
    logits = run_text(with_head(encoder(), head), sentences).astype(np.float64)
    return Evaluation(sentences, np.array(truth), np.exp(log_softmax(logits)))


@cache
def embeddings(part: str) -> npt.NDArray[np.float32]:
    """The encoder's [sentences, width] for a part of the data; ten seconds for the train part."""
    return run_text(encoder(), data.read(part)[0])


def nearest(count: int) -> list[tuple[float, str, str]]:
    """The `count` test sentences most like a train sentence: cosine, test, train."""
    train, test = data.read("train")[0], data.read("test")[0]
    similarity = embeddings("test") @ embeddings("train").T
    best = similarity.argmax(axis=1)
    order = np.argsort(-similarity.max(axis=1))[:count]
    return [(float(similarity[i, best[i]]), test[i], train[best[i]]) for i in order]


def render(head: Head, scores: dict[float, tuple[float, float]]) -> str:
    """The measured part of the model card, as Markdown."""
    result = evaluate(head)
    train = len(data.read("train")[0])
    right = int((result.predicted == result.truth).sum())
    low, high = _interval(right, len(result.truth))
    summary = (
        f"**Accuracy on the test part: {result.accuracy:.1%}** ({right} of {len(result.truth)} "
        f"sentences; 95% interval {low:.0%}–{high:.0%}). Chance is {1 / len(data.LABELS):.1%}. "
        f"Trained on {train} sentences."
    )
    lines = [
        summary,
        "",
        "| truth ↓, prediction → | " + " | ".join(data.LABELS) + " | recall |",
        "|---|" + "---:|" * (len(data.LABELS) + 1),
    ]
    for label, row in zip(data.LABELS, result.confusion, strict=True):
        index = data.LABELS.index(label)
        cells = [f"**{n}**" if i == index else str(n or "") for i, n in enumerate(row)]
        lines.append(f"| {label} | {' | '.join(cells)} | {row[index] / row.sum():.0%} |")
    precision = np.diag(result.confusion) / result.confusion.sum(axis=0)
    lines += [f"| precision | {' | '.join(f'{p:.0%}' for p in precision)} | |", ""]
    lines += [*_render_errors(result), "", *_render_scores(scores), "", *_render_nearest()]
    return "\n".join(lines)


def insert(path: Path, text: str) -> None:
    """Put `text` between the markers of the page at `path`."""
    page = path.read_text("utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def _interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a proportion (JASA 22, 1927)."""
    z, p = 1.96, right / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return float(middle - half), float(middle + half)


def _render_errors(result: Evaluation) -> list[str]:
    wrong = np.flatnonzero(result.predicted != result.truth)
    sure = result.probabilities.max(axis=1)
    wrong = wrong[np.argsort(-sure[wrong])][:ERRORS_SHOWN]
    lines = [
        "Where it errs with the most confidence:",
        "",
        "| sentence | truth | prediction |",
        "|---|---|---|",
    ]
    for i in wrong:
        predicted = f"{data.LABELS[result.predicted[i]]} ({sure[i]:.0%})"
        lines.append(f"| {result.sentences[i]} | {data.LABELS[result.truth[i]]} | {predicted} |")
    return lines


def _render_scores(scores: dict[float, tuple[float, float]]) -> list[str]:
    lines = [
        "The L2 penalty by 5-fold cross-validation on the train part alone (least log loss wins):",
        "",
        "| L2 | accuracy | log loss |",
        "|---:|---:|---:|",
    ]
    best = min(scores, key=lambda l2: scores[l2][1])
    for l2, (accuracy, loss) in scores.items():
        mark = "**" if l2 == best else ""
        lines.append(f"| {mark}{l2:g}{mark} | {accuracy:.1%} | {loss:.3f} |")
    return lines


def _render_nearest() -> list[str]:
    lines = [
        "The test sentences closest to a train sentence, by the cosine of their embeddings:",
        "",
        "| cosine | test | train |",
        "|---:|---|---|",
    ]
    lines += [f"| {cosine:.2f} | {test} | {train} |" for cosine, test, train in nearest(4)]
    return lines
