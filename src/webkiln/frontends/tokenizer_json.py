r"""tokenizer.json in words that Python's `tokenizers` and the browser's library read alike.

The browser's has ``\d`` of JavaScript in `Digits`, which knows ASCII only, and ignores `split` of
`Metaspace`. Both can be said as a `Split` with a pattern, which both libraries cut alike. Tested on
tests/data/tokenizer_corpus.json.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["portable"]


def portable(content: bytes) -> bytes:
    """The same tokenizer; the same bytes where nothing has to be said differently.

    What is no JSON is left to those who need it as a tokenizer.
    """
    try:
        document = json.loads(content)
    except ValueError:
        return content
    if not isinstance(document, dict):
        return content
    before = document.get("pre_tokenizer")
    after = _rewritten(before)
    if after == before:
        return content
    return json.dumps(document | {"pre_tokenizer": after}, ensure_ascii=False).encode()


def _rewritten(step: Any) -> Any:
    """A pre-tokenizer, and those inside it."""
    if not isinstance(step, dict):
        return step
    match step.get("type"):
        case "Sequence":
            return step | {"pretokenizers": [_rewritten(s) for s in step.get("pretokenizers", [])]}
        case "Digits":
            return _split(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        case "Metaspace" if step.get("split", True):
            # A piece begins with each replacement character.
            mark = step.get("replacement", "▁")
            pieces = _split(f"{mark}[^{mark}]*|[^{mark}]+")
            return {"type": "Sequence", "pretokenizers": [step | {"split": False}, pieces]}
    return step


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
