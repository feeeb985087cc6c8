/**
 * A shard is verified in pieces, by the SHA-256 that the plan has of each: while later ones arrive,
 * and without the price of much fresh memory, since a digest takes a copy of what it is given.
 */
import type { Part } from "./kept.js";
import { sha256 } from "./sha256.js";

/** Where weights go; `offset` is in the weight space, a multiple of 4. */
export interface WeightSink {
  /** Takes bytes that were found right. */
  place(offset: number, bytes: Uint8Array): void;
  /** The place itself, where that is memory of ours: what arrives is written straight into it. */
  readonly memory?: (offset: number, bytes: number) => Uint8Array;
}

export class Pieces {
  private checks: Promise<boolean>[] = [];

  constructor(
    private readonly part: Part,
    private readonly pieceBytes: number,
    private readonly sink: WeightSink,
  ) {}

  /** More of the shard is in memory: whole pieces are verified, and handed to the sink when found right. */
  grown(): void {
    const { checks } = this;
    const { bytes, have, shard } = this.part;
    for (let at = checks.length * this.pieceBytes; at < have; at += this.pieceBytes) {
      const end = Math.min(at + this.pieceBytes, bytes.length);
      if (end > have) return;
      const piece = bytes.subarray(at, end);
      const expected = shard.pieces[checks.length];
      const check = async (): Promise<boolean> => {
        if ((await sha256(piece)) !== expected) return false;
        // After a restart the memory has other bytes by now, which this says nothing about.
        if (checks === this.checks) this.sink.place(shard.offset + at, piece);
        return true;
      };
      const checking = check();
      checking.catch(() => undefined); // heard by right()
      checks.push(checking);
    }
  }

  /** Whether the whole shard is here and right; it is in its place, then. */
  async right(): Promise<boolean> {
    const { part, checks } = this;
    return part.have === part.bytes.length && (await Promise.all(checks)).every((right) => right);
  }

  /** The part is empty again. */
  restart(): void {
    this.checks = [];
  }
}
