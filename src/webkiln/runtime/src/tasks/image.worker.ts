/** Decodes and prepares images off the page: a large photograph takes a tenth of a second and more. */
import { prepare, type ImageSettings } from "./prepare.js";
import type { PixelSource } from "./resample.js";

/** What the page sends. Files are decoded here; what only a page has (elements) comes as a bitmap. */
export interface Request {
  readonly id: number;
  readonly image: Blob | ImageBitmap;
  readonly settings: ImageSettings;
}

/** What comes back; `reason` when the file is not an image that this browser reads. */
export type Response =
  | { readonly id: number; readonly data: Float32Array<ArrayBuffer>; readonly shape: readonly number[] }
  | { readonly id: number; readonly reason: string };

/** Rows of a bitmap through a canvas no higher than what is asked for at once. */
function rowsOf(bitmap: ImageBitmap): PixelSource {
  const { width, height } = bitmap;
  let canvas = new OffscreenCanvas(width, 1);
  const read = (top: number, rows: number): Uint8ClampedArray => {
    if (canvas.height < rows) canvas = new OffscreenCanvas(width, rows);
    // Kept by the browser in main memory, for it is read back.
    const context = canvas.getContext("2d", { willReadFrequently: true })!;
    context.globalCompositeOperation = "copy";
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    return context.getImageData(0, 0, width, rows).data;
  };
  return { width, height, read };
}

async function answer({ id, image, settings }: Request): Promise<Response> {
  try {
    // The camera's orientation counts, colour profiles do not: so it is in training pipelines.
    const bitmap = image instanceof Blob
      ? await createImageBitmap(image, { imageOrientation: "from-image", colorSpaceConversion: "none" })
      : image;
    try {
      return { id, ...prepare(rowsOf(bitmap), settings) };
    } finally {
      bitmap.close();
    }
  } catch (error) {
    return { id, reason: error instanceof Error ? error.message : String(error) };
  }
}

self.onmessage = async ({ data: request }: MessageEvent<Request>) => {
  const response = await answer(request);
  self.postMessage(response, { transfer: "data" in response ? [response.data.buffer] : [] });
};
