/**
 * How the engine computes i32x4.relaxed_dot_i8x16_i7x16_add_s. On x86 without VNNI it takes five
 * instructions, through sums of 16 bits that saturate; such sums are then the faster ones to work
 * with. Relaxed SIMD lets results beyond 7 bits differ, which tells the two apart.
 */

/** (func (export "f") (result i32)): lane 0 of four products 127 · 255 a lane. */
// prettier-ignore
const PROBE = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 24, 1, 22, 0,
  0x41, 0xff, 0, 0xfd, 15, // i32.const 127, i8x16.splat
  0x41, 0xff, 1, 0xfd, 15, // i32.const 255, i8x16.splat
  0x41, 0, 0xfd, 15, // i32.const 0, i8x16.splat
  0xfd, 0x93, 2, // i32x4.relaxed_dot_i8x16_i7x16_add_s
  0xfd, 27, 0, 11, // i32x4.extract_lane 0, end
);

/** Two sums that stopped at 2^15 - 1. */
const SATURATED = 2 * 32767;

/** Whether that goes through sums of 16 bits; only to be asked where there is relaxed SIMD. */
export function hasNarrowDot(): boolean {
  const { f } = new WebAssembly.Instance(new WebAssembly.Module(PROBE)).exports;
  return (f as () => number)() === SATURATED;
}
