"""The weight space as files: shards named by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from webkiln.bundle.plan import ShardPlan, WeightsPlan
from webkiln.memory.tables import Table
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
# A table's are as small as that allows which still are worth a request: with a row comes its shard.
_LEAST_TABLE_BYTES = 512 << 10
_TABLE_SHARDS = 96


def write_shards(
    weights: WeightSpace, tables: Sequence[Table] = (), limit: int | None = None
) -> tuple[WeightsPlan, Mapping[str, memoryview]]:
    """The weight space cut into shards of at most `limit` bytes (a multiple of 4): plan and files.

    Without a limit there are about 16 shards of 5 to 24 MiB each, or fewer for a small model, and
    about 96 from half a MiB on of a table, which has its own. The files are views of one copy of
    the weights.
    """
    space = weights.data().data
    plan: WeightsPlan = {"bytes": weights.bytes, "pieceBytes": PIECE_BYTES, "shards": []}
    files: dict[str, memoryview] = {}
    in_tables = sum(t.end - t.offset for t in tables)
    most = limit or _limit(weights.bytes - in_tables, _SHARDS, _LEAST_BYTES)
    end = 0
    for index, table in enumerate(tables):
        _cut(space, end, table.offset, most, plan, files)
        # whole words; what may be left of the last row is needed at once, like all else
        end = table.end & ~3
        rows = limit or _limit(end - table.offset, _TABLE_SHARDS, _LEAST_TABLE_BYTES)
        for shard in _cut(space, table.offset, end, rows, plan, files):
            shard["table"] = index
    _cut(space, end, weights.bytes, most, plan, files)
    return plan, files


def _limit(total: int, count: int, least: int) -> int:
    """Bytes of each of about `count` shards."""
    return min(max(-(-total // count), least), SHARD_BYTES) & ~3


def _cut(
    space: memoryview,
    start: int,
    stop: int,
    limit: int,
    plan: WeightsPlan,
    files: dict[str, memoryview],
) -> Sequence[ShardPlan]:
    """Adds the shards from byte `start` to `stop`."""
    first = len(plan["shards"])
    for offset in range(start, stop, limit):
        shard = space[offset : min(offset + limit, stop)]
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
    return plan["shards"][first:]


def piece_hashes(shard: bytes | memoryview, piece_bytes: int) -> list[str]:
    """The SHA-256 of every `piece_bytes` bytes of a shard, in lower-case hexadecimal."""
    starts = range(0, len(shard), piece_bytes)
    return [hashlib.sha256(shard[k : k + piece_bytes]).hexdigest() for k in starts]
