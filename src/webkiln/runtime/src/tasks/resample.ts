/**
 * Image resampling that gives the very bytes of Pillow's `Image.resize`.
 *
 * A model was trained and measured on what Pillow made of a photograph. A canvas scales differently
 * from browser to browser, so the pixels are resampled here: a horizontal pass, then a vertical one,
 * each in 8-bit fixed point with antialiasing (the filter widens with the scale when shrinking).
 */

export type Filter = "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";

/** RGBA bytes, row by row, as in `ImageData`. */
export interface Pixels {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * An image that is read a few rows at a time. A phone's 48-megapixel photograph is larger than the
 * canvas that the same phone allows, and need not be in memory as a whole.
 */
export interface PixelSource {
  readonly width: number;
  readonly height: number;
  /** RGBA bytes of rows `top` to `top + rows`; may be overwritten by the next call. */
  read(top: number, rows: number): Uint8ClampedArray;
}

export interface Region {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** For every output position: where its taps start, how many there are, and their weights. */
interface Taps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
  /** Weights are stored `stride` apart. */
  readonly stride: number;
}

// 32 bits, less 8 of the pixel, less 2 for sign and for filters that overshoot 1.
const PRECISION = 22;
const HALF = 1 << (PRECISION - 1);

interface Kernel {
  readonly support: number;
  readonly weight: (x: number) => number;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5. */
function cubic(distance: number): number {
  const a = -0.5;
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function hamming(distance: number): number {
  const x = Math.abs(distance);
  return x >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x));
}

const KERNELS: Record<Exclude<Filter, "nearest">, Kernel> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, weight: hamming },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Taps of outputs `from` to `from + length` when `size` pixels are scaled to `scaled`. */
function filterTaps(size: number, scaled: number, from: number, length: number, filter: Filter): Taps {
  if (filter === "nearest" || size === scaled) return copyTaps(size, scaled, from, length);
  const { support: radius, weight } = KERNELS[filter];
  const scale = size / scaled;
  const spread = Math.max(scale, 1);
  const support = radius * spread;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(length);
  const count = new Int32Array(length);
  const weights = new Int32Array(length * stride);
  const row = new Float64Array(stride);
  for (let i = 0; i < length; i++) {
    const centre = (from + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const taps = Math.min(size, Math.trunc(centre + support + 0.5)) - start;
    let total = 0;
    for (let t = 0; t < taps; t++) {
      total += row[t] = weight((start + t - centre + 0.5) * (1 / spread));
    }
    for (let t = 0; t < taps; t++) {
      const w = (total === 0 ? row[t]! : row[t]! / total) * (1 << PRECISION);
      weights[i * stride + t] = Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
    }
    first[i] = start;
    count[i] = taps;
  }
  return { first, count, weights, stride };
}

/**
 * One tap of weight 1 each: the nearest pixel. Also what an axis that keeps its size needs.
 * The position is a running sum, as in Pillow, so that ties round the same way.
 */
function copyTaps(size: number, scaled: number, from: number, length: number): Taps {
  const first = new Int32Array(length);
  const scale = size / scaled;
  let position = scale * 0.5;
  for (let i = 0; i < from + length; i++, position += scale) {
    if (i >= from) first[i - from] = Math.min(size - 1, Math.trunc(position));
  }
  return {
    first,
    count: new Int32Array(length).fill(1),
    weights: new Int32Array(length).fill(1 << PRECISION),
    stride: 1,
  };
}

// Rows that are read at once: 4 MB of a 12-megapixel photograph.
const STRIP = 256;

/** Rows `top` to `top + rows` → as many rows of `taps.first.length` pixels. Leaves alpha 0. */
function horizontal(source: PixelSource, top: number, rows: number, taps: Taps): Pixels {
  const width = taps.first.length;
  const data = new Uint8ClampedArray(rows * width * 4);
  for (let y = 0; y < rows; y += STRIP) {
    const count = Math.min(STRIP, rows - y);
    const strip = source.read(top + y, count);
    scaleRows(strip, source.width, taps, data.subarray(y * width * 4, (y + count) * width * 4));
  }
  return { data, width, height: rows };
}

function scaleRows(
  source: Uint8ClampedArray, sourceWidth: number, taps: Taps, result: Uint8ClampedArray,
): void {
  const { first, count, weights, stride } = taps;
  const width = first.length;
  for (let out = 0, line = 0; out < result.length; line += sourceWidth) {
    for (let x = 0; x < width; x++, out += 4) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let p = (line + first[x]!) * 4;
      let k = x * stride;
      for (const end = k + count[x]!; k < end; k++, p += 4) {
        const weight = weights[k]!;
        red = (red + Math.imul(source[p]!, weight)) | 0;
        green = (green + Math.imul(source[p + 1]!, weight)) | 0;
        blue = (blue + Math.imul(source[p + 2]!, weight)) | 0;
      }
      result[out] = red >> PRECISION; // the array clamps
      result[out + 1] = green >> PRECISION;
      result[out + 2] = blue >> PRECISION;
    }
  }
}

/** Rows, the first of which is row `top` of what the taps count from, → `taps.first.length` rows. */
function vertical(source: Pixels, top: number, taps: Taps): Pixels {
  const { first, count, weights, stride } = taps;
  const { data, width } = source;
  const line = width * 4;
  const result = new Uint8ClampedArray(first.length * line);
  const sums = new Int32Array(line);
  for (let y = 0; y < first.length; y++) {
    sums.fill(HALF);
    for (let t = 0; t < count[y]!; t++) {
      const weight = weights[y * stride + t]!;
      const from = (first[y]! - top + t) * line;
      for (let i = 0; i < line; i++) sums[i] = sums[i]! + Math.imul(data[from + i]!, weight);
    }
    for (let i = 0; i < line; i++) result[y * line + i] = sums[i]! >> PRECISION;
  }
  return { data: result, width, height: first.length };
}

/** Pixels in memory as a source of rows. */
export function sourceOf({ data, width, height }: Pixels): PixelSource {
  const read = (top: number, rows: number): Uint8ClampedArray =>
    data.subarray(top * width * 4, (top + rows) * width * 4);
  return { width, height, read };
}

/**
 * Scales `source` to `width` × `height` and returns `region` of that (RGBA; alpha is meaningless).
 * Only the region is computed; it is what a crop of the whole scaled image would give.
 */
export function resample(
  source: PixelSource,
  width: number,
  height: number,
  filter: Filter,
  region: Region = { x: 0, y: 0, width, height },
): Pixels {
  const columns = filterTaps(source.width, width, region.x, region.width, filter);
  const rows = filterTaps(source.height, height, region.y, region.height, filter);
  const last = region.height - 1;
  const top = rows.first[0]!;
  const needed = rows.first[last]! + rows.count[last]! - top;
  // The order matters to rounding. Pillow takes the rows first, since its version 13, when that
  // drops far more of them than columns.
  const fewer = source.height - height;
  if (fewer > 0 && fewer > 2 * (source.width - width)) {
    const tall = { data: source.read(top, needed), width: source.width, height: needed };
    return horizontal(sourceOf(vertical(tall, top, rows)), 0, region.height, columns);
  }
  return vertical(horizontal(source, top, needed, columns), top, rows);
}
