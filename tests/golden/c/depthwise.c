static const f32 k0_pool[] = {0.0f};
KERNEL void k0(const f32 *restrict b0, const f32 *restrict b1, f32 *restrict b2, Part *part) {
  const f32 *pool = k0_pool;
  __asm__("" : "+r"(pool));
  for (int task = part->begin, end = part->end; task < end; task++) {
    const int v0 = 0;
    const int v1 = 0;
    const int v2 = task;
    for (int v3 = (v1 * 768); v3 < min_i32(196, ((v1 * 768) + 768)); v3 += 6) {
      f32x8 v4 = splat_f32x8(pool[0]);
      f32x8 v5 = splat_f32x8(pool[0]);
      f32x8 v6 = splat_f32x8(pool[0]);
      f32x8 v7 = splat_f32x8(pool[0]);
      f32x8 v8 = splat_f32x8(pool[0]);
      f32x8 v9 = splat_f32x8(pool[0]);
      const f32 *p0 = b0 + ((v2 * 256) + (v0 * 8));
      const f32 *p1 = b1 + min_i32(v3, 190);
      for (int v10 = 0; v10 < 32; v10++) {
        f32x8 v11 = *(const f32x8 *)(p0 + 0);
        v4 = (v4 + (splat_f32x8(p1[0]) * v11));
        v5 = (v5 + (splat_f32x8(p1[1]) * v11));
        v6 = (v6 + (splat_f32x8(p1[2]) * v11));
        v7 = (v7 + (splat_f32x8(p1[3]) * v11));
        v8 = (v8 + (splat_f32x8(p1[4]) * v11));
        v9 = (v9 + (splat_f32x8(p1[5]) * v11));
        p0 += 8; p1 += 196;
        __asm__ volatile("" : "+r"(p0), "+r"(p1));
      }
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 0) = v4;
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 32) = v5;
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 64) = v6;
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 96) = v7;
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 128) = v8;
      *(f32x8 *)((b2 + (((v2 * 8) + (v0 * 8)) + (min_i32(v3, 190) * 32))) + 160) = v9;
    }
  }
}

static const f32 k1_pool[] = {0.0f};
KERNEL void k1(const f32 *restrict b0, const f32 *restrict b1, f32 *restrict b2, Part *part) {
  const f32 *pool = k1_pool;
  __asm__("" : "+r"(pool));
  for (int task = part->begin, end = part->end; task < end; task++) {
    const int v0 = task;
    for (int v1 = 0; v1 < 1; v1++) {
      for (int v2 = 0; v2 < 32; v2 += 16) {
        f32x16 v3 = splat_f32x16(pool[0]);
        for (int v4 = max_i32(0, ((v0 * -1) + 1)); v4 < min_i32(3, ((v0 * -1) + 15)); v4++) {
          const f32 *p0 = b0 + ((((v2 + (v0 * 448)) + (v1 * 32)) + (v4 * 448)) + (max_i32(0, ((v1 * -1) + 1)) * 32));
          const f32 *p1 = b1 + ((v2 + (v4 * 96)) + (max_i32(0, ((v1 * -1) + 1)) * 32));
          for (int v5 = max_i32(0, ((v1 * -1) + 1)); v5 < min_i32(3, ((v1 * -1) + 15)); v5++) {
            v3 = (v3 + (*(const f32x16 *)(p0 + -480) * *(const f32x16 *)(p1 + 0)));
            p0 += 32; p1 += 32;
            __asm__ volatile("" : "+r"(p0), "+r"(p1));
          }
        }
        *(f32x16 *)((b2 + ((v2 + (v0 * 448)) + (v1 * 32))) + 0) = v3;
      }
    }
    for (int v6 = 0; v6 < 3; v6++) {
      for (int v2 = 0; v2 < 32; v2 += 8) {
        f32x8 v7 = splat_f32x8(pool[0]);
        f32x8 v8 = splat_f32x8(pool[0]);
        f32x8 v9 = splat_f32x8(pool[0]);
        f32x8 v10 = splat_f32x8(pool[0]);
        const f32 *p2 = b0 + (((v2 + (v0 * 448)) + (v6 * 128)) + (max_i32(0, ((v0 * -1) + 1)) * 448));
        const f32 *p3 = b1 + (v2 + (max_i32(0, ((v0 * -1) + 1)) * 96));
        for (int v4 = max_i32(0, ((v0 * -1) + 1)); v4 < min_i32(3, ((v0 * -1) + 15)); v4++) {
          v7 = (v7 + (*(const f32x8 *)(p2 + -448) * *(const f32x8 *)(p3 + 0)));
          v8 = (v8 + (*(const f32x8 *)(p2 + -416) * *(const f32x8 *)(p3 + 0)));
          v9 = (v9 + (*(const f32x8 *)(p2 + -384) * *(const f32x8 *)(p3 + 0)));
          v10 = (v10 + (*(const f32x8 *)(p2 + -352) * *(const f32x8 *)(p3 + 0)));
          v7 = (v7 + (*(const f32x8 *)(p2 + -416) * *(const f32x8 *)(p3 + 32)));
          v8 = (v8 + (*(const f32x8 *)(p2 + -384) * *(const f32x8 *)(p3 + 32)));
          v9 = (v9 + (*(const f32x8 *)(p2 + -352) * *(const f32x8 *)(p3 + 32)));
          v10 = (v10 + (*(const f32x8 *)(p2 + -320) * *(const f32x8 *)(p3 + 32)));
          v7 = (v7 + (*(const f32x8 *)(p2 + -384) * *(const f32x8 *)(p3 + 64)));
          v8 = (v8 + (*(const f32x8 *)(p2 + -352) * *(const f32x8 *)(p3 + 64)));
          v9 = (v9 + (*(const f32x8 *)(p2 + -320) * *(const f32x8 *)(p3 + 64)));
          v10 = (v10 + (*(const f32x8 *)(p2 + -288) * *(const f32x8 *)(p3 + 64)));
          p2 += 448; p3 += 96;
          __asm__ volatile("" : "+r"(p2), "+r"(p3));
        }
        *(f32x8 *)((b2 + ((v2 + (v0 * 448)) + (v6 * 128))) + 32) = v7;
        *(f32x8 *)((b2 + ((v2 + (v0 * 448)) + (v6 * 128))) + 64) = v8;
        *(f32x8 *)((b2 + ((v2 + (v0 * 448)) + (v6 * 128))) + 96) = v9;
        *(f32x8 *)((b2 + ((v2 + (v0 * 448)) + (v6 * 128))) + 128) = v10;
      }
    }
    for (int v1 = 13; v1 < 14; v1++) {
      for (int v2 = 0; v2 < 32; v2 += 16) {
        f32x16 v3 = splat_f32x16(pool[0]);
        for (int v4 = max_i32(0, ((v0 * -1) + 1)); v4 < min_i32(3, ((v0 * -1) + 15)); v4++) {
          const f32 *p4 = b0 + ((((v2 + (v0 * 448)) + (v1 * 32)) + (v4 * 448)) + (max_i32(0, ((v1 * -1) + 1)) * 32));
          const f32 *p5 = b1 + ((v2 + (v4 * 96)) + (max_i32(0, ((v1 * -1) + 1)) * 32));
          for (int v5 = max_i32(0, ((v1 * -1) + 1)); v5 < min_i32(3, ((v1 * -1) + 15)); v5++) {
            v3 = (v3 + (*(const f32x16 *)(p4 + -480) * *(const f32x16 *)(p5 + 0)));
            p4 += 32; p5 += 32;
            __asm__ volatile("" : "+r"(p4), "+r"(p5));
          }
        }
        *(f32x16 *)((b2 + ((v2 + (v0 * 448)) + (v1 * 32))) + 0) = v3;
      }
    }
  }
}

KERNEL void k2(const f32 *restrict b0, f32 *restrict b1, Part *part) {
  for (int task = part->begin, end = part->end; task < end; task++) {
    const int v0 = task;
    for (int v1 = 0; v1 < 196; v1++) {
      (b1 + ((v0 * 196) + v1))[0] = (b0 + (v0 + (v1 * 32)))[0];
    }
  }
}
