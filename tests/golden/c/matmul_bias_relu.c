static const f32 k0_pool[] = {0.0f};
KERNEL void k0(const f32 *restrict b0, const f32 *restrict b1, const f32 *restrict b2, f32 *restrict b3, int v0, Part *part) {
  const f32 *pool = k0_pool;
  __asm__("" : "+r"(pool));
  for (int task = part->begin, end = part->end; task < end; task++) {
    const int v1 = 0;
    const int v2 = task % ((v0 + 629) / 630), rest1 = task / ((v0 + 629) / 630);
    const int v3 = rest1;
    if ((6 <= v0)) {
      for (int v4 = (v2 * 630); v4 < min_i32(v0, ((v2 * 630) + 630)); v4 += 6) {
        f32x8 v5 = splat_f32x8(pool[0]);
        f32x8 v6 = splat_f32x8(pool[0]);
        f32x8 v7 = splat_f32x8(pool[0]);
        f32x8 v8 = splat_f32x8(pool[0]);
        f32x8 v9 = splat_f32x8(pool[0]);
        f32x8 v10 = splat_f32x8(pool[0]);
        const f32 *p0 = b0 + ((v3 * 768) + (v1 * 8));
        const f32 *p1 = b1 + (min_i32(v4, (v0 - 6)) * 96);
        for (int v11 = 0; v11 < 96; v11++) {
          f32x8 v12 = *(const f32x8 *)(p0 + 0);
          v5 = (v5 + (splat_f32x8(p1[0]) * v12));
          v6 = (v6 + (splat_f32x8(p1[96]) * v12));
          v7 = (v7 + (splat_f32x8(p1[192]) * v12));
          v8 = (v8 + (splat_f32x8(p1[288]) * v12));
          v9 = (v9 + (splat_f32x8(p1[384]) * v12));
          v10 = (v10 + (splat_f32x8(p1[480]) * v12));
          p0 += 8; p1 += 1;
          __asm__ volatile("" : "+r"(p0), "+r"(p1));
        }
        const i32 s2 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s2 + (min_i32(v4, (v0 - 6)) * 128))) + 0) = max_f32x8((v5 + *(const f32x8 *)((b2 + s2) + 0)), splat_f32x8(pool[0]));
        const i32 s3 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s3 + (min_i32(v4, (v0 - 6)) * 128))) + 128) = max_f32x8((v6 + *(const f32x8 *)((b2 + s3) + 0)), splat_f32x8(pool[0]));
        const i32 s4 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s4 + (min_i32(v4, (v0 - 6)) * 128))) + 256) = max_f32x8((v7 + *(const f32x8 *)((b2 + s4) + 0)), splat_f32x8(pool[0]));
        const i32 s5 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s5 + (min_i32(v4, (v0 - 6)) * 128))) + 384) = max_f32x8((v8 + *(const f32x8 *)((b2 + s5) + 0)), splat_f32x8(pool[0]));
        const i32 s6 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s6 + (min_i32(v4, (v0 - 6)) * 128))) + 512) = max_f32x8((v9 + *(const f32x8 *)((b2 + s6) + 0)), splat_f32x8(pool[0]));
        const i32 s7 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s7 + (min_i32(v4, (v0 - 6)) * 128))) + 640) = max_f32x8((v10 + *(const f32x8 *)((b2 + s7) + 0)), splat_f32x8(pool[0]));
      }
    } else {
      for (int v4 = (v2 * 630); v4 < min_i32(v0, ((v2 * 630) + 630)); v4++) {
        f32x8 v5 = splat_f32x8(pool[0]);
        const f32 *p8 = b0 + ((v3 * 768) + (v1 * 8));
        const f32 *p9 = b1 + (v4 * 96);
        for (int v11 = 0; v11 < 96; v11++) {
          f32x8 v13 = *(const f32x8 *)(p8 + 0);
          v5 = (v5 + (splat_f32x8(p9[0]) * v13));
          p8 += 8; p9 += 1;
          __asm__ volatile("" : "+r"(p8), "+r"(p9));
        }
        const i32 s10 = ((v3 * 8) + (v1 * 8));
        *(f32x8 *)((b3 + (s10 + (v4 * 128))) + 0) = max_f32x8((v5 + *(const f32x8 *)((b2 + s10) + 0)), splat_f32x8(pool[0]));
      }
    }
  }
}
