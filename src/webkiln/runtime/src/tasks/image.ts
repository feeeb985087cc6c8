/** Images as people have them → tensors, through a worker that serves every image task. */
import { Tensor, WebkilnError, type DType } from "../index.js";
import type { Request, Response } from "./image.worker.js";
import type { ImageSettings } from "./prepare.js";

/** A file, an address, an element of the page, or pixels. */
export type ImageInput =
  | Blob | string | URL
  | HTMLImageElement | HTMLVideoElement | HTMLCanvasElement | OffscreenCanvas
  | ImageBitmap | ImageData;

/** Turns images into a model's input. */
export interface ImageReader {
  /** @throws WebkilnError "input-image" when this browser can't read it, "aborted", "disposed". */
  read(image: ImageInput, dtype: DType, signal?: AbortSignal): Promise<Tensor>;
  close(): void;
}

interface Waiting {
  readonly resolve: (response: Response) => void;
  readonly reject: (error: unknown) => void;
}

function aborted(): WebkilnError {
  return new WebkilnError("aborted", "The run was aborted.");
}

async function fetchImage(address: string | URL, signal?: AbortSignal): Promise<Blob> {
  const response = await fetch(address, signal ? { signal } : {}).catch((cause: unknown) => {
    if (signal?.aborted) throw aborted();
    throw new WebkilnError("network", `The image ${address} can't be reached.`, undefined, { cause });
  });
  if (!response.ok) {
    throw new WebkilnError("not-found", `The image ${address} answers ${response.status}.`);
  }
  return response.blob();
}

/** What the worker can take: a file as it is, anything else as a bitmap of its own. */
async function portable(image: ImageInput, signal?: AbortSignal): Promise<Blob | ImageBitmap> {
  if (typeof image === "string" || image instanceof URL) return fetchImage(image, signal);
  if (image instanceof Blob) return image;
  try {
    if (typeof HTMLImageElement === "function" && image instanceof HTMLImageElement) await image.decode();
    return await createImageBitmap(image, { colorSpaceConversion: "none" });
  } catch (cause) {
    const hint = "Pass a File, a URL, ImageData, or a loaded image, video or canvas element.";
    throw new WebkilnError("input-image", "This is not an image that can be read.", hint, { cause });
  }
}

/** Starts the worker at once, so that it is there when the first image comes. */
export function imageReader(settings: ImageSettings): ImageReader {
  const worker = new Worker(new URL("./image.worker.js", import.meta.url), { type: "module" });
  const waiting = new Map<number, Waiting>();
  let next = 0;
  worker.onmessage = ({ data }: MessageEvent<Response>) => {
    waiting.get(data.id)?.resolve(data);
    waiting.delete(data.id);
  };
  let closed: WebkilnError | undefined;
  const fail = (error: WebkilnError): void => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  worker.onerror = () =>
    fail(new WebkilnError("worker-failed", "The worker that prepares images could not start."));

  async function read(image: ImageInput, dtype: DType, signal?: AbortSignal): Promise<Tensor> {
    const source = await portable(image, signal);
    const id = next++;
    const response = await new Promise<Response>((resolve, reject) => {
      if (closed || signal?.aborted) return reject(closed ?? aborted());
      signal?.addEventListener("abort", () => reject(aborted()), { once: true });
      waiting.set(id, { resolve, reject });
      const request: Request = { id, image: source, settings };
      worker.postMessage(request, source instanceof Blob ? [] : [source]);
    });
    if ("reason" in response) {
      const hint = "Use a JPEG, PNG, WebP, GIF or AVIF file.";
      throw new WebkilnError("input-image", `This file is not an image that the browser reads.`, hint);
    }
    return new Tensor(dtype, response.data, response.shape);
  }

  const close = (): void => {
    closed = new WebkilnError("disposed", "The model was disposed.", "Load it again.");
    worker.terminate();
    fail(closed);
  };
  return { read, close };
}
