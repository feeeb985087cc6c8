"""Run a script with the Node that builds the runtime: `python scripts/node.py SCRIPT ARGS...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from build_runtime import node_command

if __name__ == "__main__":
    node = node_command()
    if node is None:
        sys.exit("error: no Node at hand\ntry: make setup")
    os.execv(node, [str(node), *sys.argv[1:]])
