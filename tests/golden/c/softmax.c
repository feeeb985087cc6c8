static const f32 k0_pool[] = {-__builtin_inff(), 0.0f, -88.0f, 1.4426950408889634f, 12583039.0f, 12583166.0f, 0.693359375f, -0.00021219444005471377f, 0.001381461275741458f, 0.008368710055947304f, 0.04166838899254799f, 0.1666652113199234f, 0.4999999403953552f, 1.0f};
KERNEL void k0(const f32 *restrict b0, f32 *restrict b1, int v0, Part *part) {
  const f32 *pool = k0_pool;
  __asm__("" : "+r"(pool));
  for (int task = part->begin, end = part->end; task < end; task++) {
    const int v1 = task % ((v0 + 4095) / 4096), rest0 = task / ((v0 + 4095) / 4096);
    const int v2 = rest0;
    f32x16 v3 = splat_f32x16(pool[0]);
    const f32 *p0 = b0 + (v2 * v0);
    for (int v4 = 0; v4 < ((v0 / 16) * 16); v4 += 16) {
      v3 = max_f32x16(v3, *(const f32x16 *)(p0 + 0));
      p0 += 16;
      __asm__ volatile("" : "+r"(p0));
    }
    f32 v5 = fold_max_f32x16(v3);
    for (int v4 = ((v0 / 16) * 16); v4 < v0; v4++) {
      v5 = max_f32(v5, (b0 + ((v2 * v0) + v4))[0]);
    }
    f32x16 v6 = splat_f32x16(pool[1]);
    const f32 *p1 = b0 + (v2 * v0);
    for (int v7 = 0; v7 < ((v0 / 16) * 16); v7 += 16) {
      const f32x16 s2 = max_f32x16((*(const f32x16 *)(p1 + 0) - splat_f32x16(v5)), splat_f32x16(pool[2]));
      const f32x16 s3 = min_f32x16(((s2 * splat_f32x16(pool[3])) + splat_f32x16(pool[4])), splat_f32x16(pool[5]));
      const f32x16 s4 = (s3 - splat_f32x16(pool[4]));
      const f32x16 s5 = ((s2 - (s4 * splat_f32x16(pool[6]))) - (s4 * splat_f32x16(pool[7])));
      v6 = (v6 + (((((((((((((splat_f32x16(pool[8]) * s5) + splat_f32x16(pool[9])) * s5) + splat_f32x16(pool[10])) * s5) + splat_f32x16(pool[11])) * s5) + splat_f32x16(pool[12])) * s5) + splat_f32x16(pool[13])) * s5) + splat_f32x16(pool[13])) * ((f32x16)((((i32x16)(s3)) << splat_i32x16(23))))));
      p1 += 16;
      __asm__ volatile("" : "+r"(p1));
    }
    f32 v8 = fold_add_f32x16(v6);
    for (int v7 = ((v0 / 16) * 16); v7 < v0; v7++) {
      const f32 s6 = max_f32(((b0 + ((v2 * v0) + v7))[0] - v5), -88.0f);
      const f32 s7 = min_f32(((s6 * 1.4426950408889634f) + 12583039.0f), 12583166.0f);
      const f32 s8 = (s7 - 12583039.0f);
      const f32 s9 = ((s6 - (s8 * 0.693359375f)) - (s8 * -0.00021219444005471377f));
      v8 = (v8 + (((((((((((((0.001381461275741458f * s9) + 0.008368710055947304f) * s9) + 0.04166838899254799f) * s9) + 0.1666652113199234f) * s9) + 0.4999999403953552f) * s9) + 1.0f) * s9) + 1.0f) * bits_i32_f32((bits_f32_i32(s7) << 23))));
    }
    for (int v9 = (v1 * 4096); v9 < ((v0 / 8) * 8); v9 += 8) {
      const f32x8 s10 = max_f32x8((*(const f32x8 *)((b0 + ((v2 * v0) + v9)) + 0) - splat_f32x8(v5)), splat_f32x8(pool[2]));
      const f32x8 s11 = min_f32x8(((s10 * splat_f32x8(pool[3])) + splat_f32x8(pool[4])), splat_f32x8(pool[5]));
      const f32x8 s12 = (s11 - splat_f32x8(pool[4]));
      const f32x8 s13 = ((s10 - (s12 * splat_f32x8(pool[6]))) - (s12 * splat_f32x8(pool[7])));
      *(f32x8 *)((b1 + ((v2 * v0) + v9)) + 0) = ((((((((((((((splat_f32x8(pool[8]) * s13) + splat_f32x8(pool[9])) * s13) + splat_f32x8(pool[10])) * s13) + splat_f32x8(pool[11])) * s13) + splat_f32x8(pool[12])) * s13) + splat_f32x8(pool[13])) * s13) + splat_f32x8(pool[13])) * ((f32x8)((((i32x8)(s11)) << splat_i32x8(23))))) * splat_f32x8((1.0f / v8)));
    }
    for (int v9 = ((v0 / 8) * 8); v9 < v0; v9++) {
      const f32 s14 = max_f32(((b0 + ((v2 * v0) + v9))[0] - v5), -88.0f);
      const f32 s15 = min_f32(((s14 * 1.4426950408889634f) + 12583039.0f), 12583166.0f);
      const f32 s16 = (s15 - 12583039.0f);
      const f32 s17 = ((s14 - (s16 * 0.693359375f)) - (s16 * -0.00021219444005471377f));
      (b1 + ((v2 * v0) + v9))[0] = ((((((((((((((0.001381461275741458f * s17) + 0.008368710055947304f) * s17) + 0.04166838899254799f) * s17) + 0.1666652113199234f) * s17) + 0.4999999403953552f) * s17) + 1.0f) * s17) + 1.0f) * bits_i32_f32((bits_f32_i32(s15) << 23))) * (1.0f / v8));
    }
  }
}
