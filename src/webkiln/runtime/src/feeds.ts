/**
 * From the caller's tensors to the bytes in the model's buffers, and back. Everything is checked
 * here.
 */
import { WebkilnError } from "./errors.js";
import { print, type Dims, type Expression } from "./expression.js";
import { resolve, type Plan, type PlanPort, type PlanProgram, type Storage } from "./plan.js";
import {
  bytesOf,
  elements,
  fromHalf,
  Tensor,
  toHalf,
  viewAs,
  type DType,
  type TensorData,
} from "./tensor.js";

/** Prints a shape: [1, sequence]. */
export function printShape(shape: readonly Expression[]): string {
  return `[${shape.map(print).join(", ")}]`;
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}

/**
 * Checks names and dtypes, and works out every dimension from the shapes and from `given`. Inputs that
 * are `carried` over from the run before are no feeds.
 */
export function bind(
  plan: Plan,
  program: PlanProgram,
  feeds: Readonly<Record<string, Tensor>>,
  given: Dims = {},
  carried: Readonly<Record<string, string>> = {},
): Dims {
  const names = program.inputs.map(({ name }) => name);
  for (const name of Object.keys(feeds)) {
    if (!names.includes(name)) {
      throw new WebkilnError(
        "input-name",
        `The model has no input "${name}".`,
        `It takes ${quoted(names)}.`,
      );
    }
  }
  const dims: Record<string, number> = { ...given };
  for (const name of Object.keys(given)) {
    if (plan.dims.some((dim) => dim.name === name)) continue;
    const known = quoted(plan.dims.map((dim) => dim.name)) || "no symbolic dimensions";
    throw new WebkilnError(
      "input-name",
      `The model has no dimension "${name}".`,
      `It has ${known}.`,
    );
  }
  const fed = program.inputs.filter(({ name }) => !Object.hasOwn(carried, name));
  for (const port of fed) bindPort(plan, port, feeds[port.name], names, dims);
  for (const { name, min, max } of plan.dims) {
    if (dims[name] === undefined && needs(program, name)) {
      throw new WebkilnError(
        "input-shape",
        `No input's shape gives the dimension "${name}".`,
        `Pass it: run(feeds, { dims: { ${name}: ${max} } }).`,
      );
    }
    checkBounds(name, (dims[name] ??= min), min, max);
  }
  for (const port of fed) checkShape(port, feeds[port.name]!, dims);
  return dims;
}

/** The dimensions that anything which a program does depends on. A plan has thousands of expressions. */
const needed = new WeakMap<PlanProgram, ReadonlySet<string>>();

function needs(program: PlanProgram, name: string): boolean {
  let names = needed.get(program);
  if (!names) needed.set(program, (names = mentioned(program)));
  return names.has(name);
}

function mentioned({ inputs, outputs, steps }: PlanProgram): ReadonlySet<string> {
  const names = new Set<string>();
  const add = (e: Expression): void => {
    if (typeof e === "object") [e[1], e[2]].forEach(add);
    else if (typeof e === "string") names.add(e);
  };
  for (const { shape } of [...inputs, ...outputs]) shape.forEach(add);
  for (const { flops, bytes } of steps.wasm) [flops, bytes].forEach(add);
  for (const { params, workgroups } of steps.webgpu) [...params, ...workgroups].forEach(add);
  return names;
}

function bindPort(
  plan: Plan,
  port: PlanPort,
  tensor: Tensor | undefined,
  names: readonly string[],
  dims: Record<string, number>,
): void {
  const expected = `It takes ${port.dtype} ${printShape(port.shape)}.`;
  if (!tensor) {
    throw new WebkilnError(
      "input-name",
      `The input "${port.name}" is missing.`,
      `The model takes ${quoted(names)}.`,
    );
  }
  if (!(tensor instanceof Tensor)) {
    throw new WebkilnError("input-dtype", `The input "${port.name}" is not a Tensor.`, expected);
  }
  if (tensor.dtype !== port.dtype) {
    throw new WebkilnError("input-dtype", `The input "${port.name}" is ${tensor.dtype}.`, expected);
  }
  if (tensor.shape.length !== port.shape.length) wrongShape(port, tensor);
  port.shape.forEach((size, i) => {
    if (typeof size !== "string") return;
    const value = tensor.shape[i]!;
    const bound = plan.dims.find(({ name }) => name === size)!;
    checkBounds(size, value, bound.min, bound.max, port, tensor);
    if (dims[size] === undefined) dims[size] = value;
    else if (dims[size] !== value) {
      wrongShape(port, tensor, `Elsewhere "${size}" is ${dims[size]}.`);
    }
  });
}

function wrongShape(port: PlanPort, tensor: Tensor, why = ""): never {
  throw new WebkilnError(
    "input-shape",
    `The input "${port.name}" has shape [${tensor.shape.join(", ")}]; ` +
      `the model takes ${printShape(port.shape)}.`,
    why || undefined,
  );
}

function checkBounds(
  name: string,
  value: number,
  min: number,
  max: number,
  port?: PlanPort,
  tensor?: Tensor,
): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  const why = `The dimension "${name}" is ${value}; this bundle was built for ${min} to ${max}.`;
  if (port && tensor) wrongShape(port, tensor, why);
  throw new WebkilnError("input-shape", why, `Build with --max ${name}=${value} for more.`);
}

function checkShape(port: PlanPort, tensor: Tensor, dims: Dims): void {
  const wanted = resolve(port.shape, dims);
  if (wanted.some((size, i) => size !== tensor.shape[i])) {
    wrongShape(
      port,
      tensor,
      wanted.join() === port.shape.join() ? "" : `That is [${wanted.join(", ")}] here.`,
    );
  }
}

/** Bytes of one element in storage. */
export function storageSize(storage: Storage): number {
  return storage === "float16" ? 2 : storage.endsWith("8") ? 1 : 4;
}

/** Bytes of a port's tensor, as stored, for these dimensions. */
export function storedBytes(plan: Plan, port: PlanPort, dims: Dims): number {
  return elements(resolve(port.shape, dims)) * storageSize(plan.buffers[port.buffer]!.dtype);
}

/** Dtypes whose elements lie in memory as the storage has them. */
function sameBits(dtype: DType, storage: Storage): boolean {
  return dtype === storage || (dtype === "bool" && storage === "uint8");
}

/**
 * The tensor's bytes as the buffer stores them: a view where they are the same, else a new array.
 */
export function toStorage(tensor: Tensor, storage: Storage, name: string): Uint8Array<ArrayBuffer> {
  const { dtype, data } = tensor;
  if (sameBits(dtype, storage)) return bytesOf(data) as Uint8Array<ArrayBuffer>;
  const unfit = (at: number): never => {
    throw new WebkilnError(
      "input-dtype",
      `The input "${name}" holds ${data[at]} at ${at}, which does not fit: ` +
        `the model computes in ${storage}.`,
    );
  };
  const target = viewAs(storage, new ArrayBuffer(data.length * storageSize(storage)));
  if (dtype.endsWith("int64")) {
    // As halves: 64-bit numbers of JavaScript are objects, one for each element.
    const halves = viewAs(storage, data.buffer, data.byteOffset, 2 * data.length);
    for (let i = 0; i < target.length; i++) {
      const low = halves[2 * i]!;
      if (halves[2 * i + 1] !== (low < 0 ? -1 : 0)) unfit(i);
      target[i] = low;
    }
    return bytesOf(target) as Uint8Array<ArrayBuffer>;
  }
  const from = data as ArrayLike<number>;
  for (let i = 0; i < from.length; i++) {
    const value = dtype === "float16" ? fromHalf(from[i]!) : from[i]!;
    target[i] = storage === "float16" ? toHalf(value) : value;
    // Only integers can overflow their storage.
    if (target[i] !== value && !storage.startsWith("float")) unfit(i);
  }
  return bytesOf(target) as Uint8Array<ArrayBuffer>;
}

/** A tensor of `dtype` from a buffer's bytes, which it takes over. */
export function fromStorage(
  bytes: ArrayBuffer,
  dtype: DType,
  storage: Storage,
  shape: readonly number[],
): Tensor {
  const stored = viewAs(storage, bytes, 0, elements(shape));
  if (sameBits(dtype, storage)) return new Tensor(dtype, stored, shape);
  if (dtype === "bool")
    return new Tensor(
      dtype,
      Uint8Array.from(stored as Int32Array, (v) => Number(v !== 0)),
      shape,
    );
  const values =
    storage === "float16" ? Float32Array.from(stored as Uint16Array, fromHalf) : stored;
  return new Tensor(dtype, values as TensorData, shape);
}
