"""docs/operators.md lists exactly what is defined; run this file to bring it up to date."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from webkiln.ops import OPERATORS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
BEGIN, END = "<!-- begin operators -->", "<!-- end operators -->"


def table() -> str:
    """A row for each file of definitions: its subject, and its operators."""
    families: dict[str, set[str]] = defaultdict(set)
    for (domain, name), definition in OPERATORS.items():
        family = definition.__globals__["__name__"].rpartition(".")[2]
        families[family].add(name if not domain else f"{domain}.{name}")
    rows = ["| definitions in `src/webkiln/ops/` | operators |", "|---|---|"]
    for family in sorted(families):
        rows.append(f"| `{family}.py` | {', '.join(sorted(families[family]))} |")
    return "\n".join(rows)


def test_the_page_lists_what_is_defined() -> None:
    listed = re.search(f"{BEGIN}\n(.*)\n{END}", PAGE.read_text(), re.DOTALL)
    assert listed is not None
    assert listed[1] == table(), "run python tests/ops/test_operators_page.py"


if __name__ == "__main__":
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
    sys.exit(0)
