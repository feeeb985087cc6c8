/** Times the steps of a WebGPU program, by timestamp queries where the adapter has them. */

/** A query set holds 4096 timestamps at most (WebGPU, 20.1). */
const MOST = 4096;

export type EncodeStep = (pass: GPUComputePassEncoder, step: number) => void;

export class StepTimer {
  private readonly queries: GPUQuerySet | undefined;
  private readonly resolved: GPUBuffer | undefined;
  private readonly staging: GPUBuffer | undefined;

  constructor(
    private readonly gpu: GPUDevice,
    private readonly steps: number,
  ) {
    const count = 2 * steps;
    if (!gpu.features.has("timestamp-query") || !steps || count > MOST) return;
    this.queries = gpu.createQuerySet({ type: "timestamp", count });
    const size = 8 * count;
    this.resolved = gpu.createBuffer({
      size,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
    this.staging = gpu.createBuffer({
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /**
   * Milliseconds of each step. Every step gets a pass of its own, which a plain run doesn't spend.
   */
  async time(encode: EncodeStep): Promise<number[]> {
    return this.queries ? this.byTimestamps(encode) : this.byWaiting(encode);
  }

  private async byTimestamps(encode: EncodeStep): Promise<number[]> {
    const [querySet, resolved, staging] = [this.queries!, this.resolved!, this.staging!];
    const encoder = this.gpu.createCommandEncoder();
    for (let step = 0; step < this.steps; step++) {
      const pass = encoder.beginComputePass({
        timestampWrites: {
          querySet,
          beginningOfPassWriteIndex: 2 * step,
          endOfPassWriteIndex: 2 * step + 1,
        },
      });
      encode(pass, step);
      pass.end();
    }
    encoder.resolveQuerySet(querySet, 0, 2 * this.steps, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, resolved.size);
    this.gpu.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const stamps = new BigUint64Array(staging.getMappedRange());
    // Some drivers let a pass end before it began.
    const ms = Array.from({ length: this.steps }, (_, step) =>
      Math.max(0, Number(stamps[2 * step + 1]! - stamps[2 * step]!) / 1e6),
    );
    staging.unmap();
    return ms;
  }

  /** Without timestamps: a submission a step, its round trip included. */
  private async byWaiting(encode: EncodeStep): Promise<number[]> {
    const ms: number[] = [];
    for (let step = 0; step < this.steps; step++) {
      const start = performance.now();
      const encoder = this.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      encode(pass, step);
      pass.end();
      this.gpu.queue.submit([encoder.finish()]);
      await this.gpu.queue.onSubmittedWorkDone();
      ms.push(performance.now() - start);
    }
    return ms;
  }

  dispose(): void {
    this.queries?.destroy();
    this.resolved?.destroy();
    this.staging?.destroy();
  }
}
