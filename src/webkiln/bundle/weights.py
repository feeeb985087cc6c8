"""The weight space as files: shards named by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from webkiln.bundle.plan import WeightsPlan
from webkiln.memory.weights import WeightSpace

__all__ = ["SHARD_BYTES", "write_shards"]

# Below the 25 MiB a file of Cloudflare Pages, the strictest of the usual hosts.
SHARD_BYTES = 24 << 20
# The browser verifies a shard once it is whole, while later ones arrive: a small model in one piece
# would wait for that at the end. Below this a shard is hardly longer on its way than its request.
_LEAST_BYTES = 5 << 20
_SHARDS = 16


def write_shards(
    weights: WeightSpace, limit: int | None = None
) -> tuple[WeightsPlan, Mapping[str, memoryview]]:
    """The weight space cut into shards of at most `limit` bytes (a multiple of 4): plan and files.

    Without a limit there are about 16 shards of 5 to 24 MiB each, or fewer for a small model. The
    files are views of one copy of the weights.
    """
    space = weights.data().data
    if limit is None:
        limit = min(max(-(-weights.bytes // _SHARDS), _LEAST_BYTES), SHARD_BYTES) & ~3
    plan: WeightsPlan = {"bytes": weights.bytes, "shards": []}
    files: dict[str, memoryview] = {}
    for offset in range(0, weights.bytes, limit):
        piece = space[offset : offset + limit]
        digest = hashlib.sha256(piece).hexdigest()
        file = f"{digest}.bin"
        files[file] = piece
        plan["shards"].append(
            {"file": file, "sha256": digest, "bytes": piece.nbytes, "offset": offset}
        )
    return plan, files
