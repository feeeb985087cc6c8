/** From pixels to what an image model reads: resize, crop, scale and normalise, as the plan says. */
import { resample, type Filter, type PixelSource, type Region } from "./resample.js";

/** `plan.task.preprocess`. Sizes are [height, width]. */
export interface ImageSettings {
  /** `shortest` keeps the proportions; `size` does not. */
  readonly resize: { readonly resample: Filter } & (
    | { readonly shortest: number }
    | { readonly size: readonly [number, number] }
  );
  /** Taken from the centre. */
  readonly crop?: readonly [number, number];
  readonly rescale: number;
  /** A value a channel. One channel means grey. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly layout: "NCHW" | "NHWC";
}

export interface Prepared {
  readonly data: Float32Array<ArrayBuffer>;
  readonly shape: readonly [number, number, number, number];
}

/** How large the image becomes, and which part of that the model sees. */
export function geometry(
  width: number, height: number, settings: ImageSettings,
): { width: number; height: number; region: Region } {
  const { resize, crop } = settings;
  let scaledWidth: number;
  let scaledHeight: number;
  if ("shortest" in resize) {
    const { shortest } = resize;
    scaledWidth = width <= height ? shortest : Math.trunc((shortest * width) / height);
    scaledHeight = width <= height ? Math.trunc((shortest * height) / width) : shortest;
  } else {
    [scaledHeight, scaledWidth] = resize.size;
  }
  const [cropHeight, cropWidth] = crop ?? [scaledHeight, scaledWidth];
  const region = {
    x: (scaledWidth - cropWidth) >> 1,
    y: (scaledHeight - cropHeight) >> 1,
    width: cropWidth,
    height: cropHeight,
  };
  return { width: scaledWidth, height: scaledHeight, region };
}

/** ITU-R 601-2 luma in fixed point, as Pillow's `convert("L")`. In place. */
function toGrey(pixels: Uint8ClampedArray): Uint8ClampedArray {
  for (let i = 0; i < pixels.length; i += 4) {
    const luma = pixels[i]! * 19595 + pixels[i + 1]! * 38470 + pixels[i + 2]! * 7471 + 0x8000;
    pixels[i] = pixels[i + 1] = pixels[i + 2] = luma >> 16;
  }
  return pixels;
}

/** Resizes, crops and normalises; `(byte × rescale - mean) ÷ std` is looked up, in single precision. */
export function prepare(source: PixelSource, settings: ImageSettings): Prepared {
  const channels = settings.mean.length;
  const grey: PixelSource = { ...source, read: (top, rows) => toGrey(source.read(top, rows).slice()) };
  const size = geometry(source.width, source.height, settings);
  const { data: pixels, width, height } = resample(
    channels === 1 ? grey : source, size.width, size.height, settings.resize.resample, size.region,
  );
  const area = width * height;
  const data = new Float32Array(area * channels);
  const planar = settings.layout === "NCHW";
  for (let c = 0; c < channels; c++) {
    const table = Float32Array.from({ length: 256 }, (_, byte) =>
      (Math.fround(byte * settings.rescale) - Math.fround(settings.mean[c]!)) / settings.std[c]!,
    );
    const step = planar ? 1 : channels;
    for (let i = 0, out = planar ? c * area : c; i < area; i++, out += step) {
      data[out] = table[pixels[i * 4 + c]!]!;
    }
  }
  return { data, shape: planar ? [1, channels, height, width] : [1, height, width, channels] };
}
