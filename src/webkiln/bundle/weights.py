"""The weight space as files: shards named by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from webkiln.bundle.plan import WeightsPlan
from webkiln.memory.weights import WeightSpace

__all__ = ["PIECE_BYTES", "SHARD_BYTES", "piece_hashes", "write_shards"]

# Below the 25 MiB a file of Cloudflare Pages, the strictest of the usual hosts.
SHARD_BYTES = 24 << 20
# The browser verifies a piece while the next arrives. Digests copy what they are given: into memory
# that was used before up to somewhat below 1 MiB, above into fresh one, which takes twice as long.
PIECE_BYTES = 768 << 10
# A few are under way at once. Below this a shard is hardly longer on its way than its request.
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
    plan: WeightsPlan = {"bytes": weights.bytes, "pieceBytes": PIECE_BYTES, "shards": []}
    files: dict[str, memoryview] = {}
    for offset in range(0, weights.bytes, limit):
        shard = space[offset : offset + limit]
        digest = hashlib.sha256(shard).hexdigest()
        file = f"{digest}.bin"
        files[file] = shard
        plan["shards"].append(
            {
                "file": file,
                "sha256": digest,
                "bytes": shard.nbytes,
                "offset": offset,
                "pieces": piece_hashes(shard, PIECE_BYTES),
            }
        )
    return plan, files


def piece_hashes(shard: bytes | memoryview, piece_bytes: int) -> list[str]:
    """The SHA-256 of every `piece_bytes` bytes of a shard, in lower-case hexadecimal."""
    starts = range(0, len(shard), piece_bytes)
    return [hashlib.sha256(shard[k : k + piece_bytes]).hexdigest() for k in starts]
