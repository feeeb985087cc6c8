import { WebkilnError } from "./errors.js";

/** Element types of a model's inputs and outputs, named as in ONNX. */
export type DType =
  | "float32"
  | "float64"
  | "float16"
  | "int64"
  | "int32"
  | "int16"
  | "int8"
  | "uint64"
  | "uint32"
  | "uint16"
  | "uint8"
  | "bool";

/** What holds a tensor's elements. `float16` is held as its bits, `bool` as bytes of 0 and 1. */
export type TensorData =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

/**
 * What a tensor can be made from: a typed array, or plain numbers, bigints or booleans in row-major
 * order.
 */
export type TensorSource = ArrayBufferView | readonly (number | bigint | boolean)[];

interface ArrayType {
  new (length: number): TensorData;
  new (buffer: ArrayBuffer, offset?: number, length?: number): TensorData;
  readonly BYTES_PER_ELEMENT: number;
}

const ARRAYS: Readonly<Record<DType, ArrayType>> = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint64: BigUint64Array,
  uint32: Uint32Array,
  uint16: Uint16Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

export const DTYPES: readonly string[] = Object.keys(ARRAYS);

/** Bytes of one element. */
export function sizeOf(dtype: DType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/**
 * Views `count` elements of `buffer` from byte `offset`, which is a multiple of the element's size.
 */
export function viewAs(dtype: DType, buffer: ArrayBuffer, offset = 0, count?: number): TensorData {
  return new ARRAYS[dtype](buffer, offset, count);
}

/** The number of elements of a shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * A typed block of numbers in row-major order.
 *
 *     new Tensor("float32", data, [1, 3, 224, 224])
 *     new Tensor("int64", [101, 7592, 102], [1, 3])      // or bigints, or an Int32Array
 *
 * @throws WebkilnError "input-dtype" for an unknown dtype or data of another kind, "input-shape"
 * when the data has not as many elements as the shape.
 */
export class Tensor {
  readonly dtype: DType;
  readonly data: TensorData;
  readonly shape: readonly number[];

  constructor(dtype: DType, data: TensorSource, shape?: readonly number[]) {
    if (!Object.hasOwn(ARRAYS, dtype)) {
      throw new WebkilnError(
        "input-dtype",
        `No such dtype: ${dtype}.`,
        `Use one of ${DTYPES.join(", ")}.`,
      );
    }
    this.dtype = dtype;
    this.data = convert(dtype, data);
    this.shape = Object.freeze([...(shape ?? [this.data.length])]);
    if (!this.shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      throw new WebkilnError("input-shape", `Not a shape: [${this.shape.join(", ")}].`);
    }
    if (elements(this.shape) !== this.data.length) {
      throw new WebkilnError(
        "input-shape",
        `A tensor of shape [${this.shape.join(", ")}] has ${elements(this.shape)} elements; ` +
          `the data has ${this.data.length}.`,
      );
    }
  }

  /**
   * The elements as 32-bit floats, whatever the dtype; shares memory when that is what they are
   * already.
   */
  toFloat32(): Float32Array<ArrayBuffer> {
    if (this.data instanceof Float32Array) return this.data;
    if (this.dtype === "float16") return Float32Array.from(this.data as Uint16Array, fromHalf);
    return Float32Array.from(this.data as ArrayLike<number | bigint>, Number);
  }
}

/** Puts `source` into the array of `dtype`; the same object when it is that already. */
export function convert(dtype: DType, source: TensorSource): TensorData {
  const Target = ARRAYS[dtype];
  const name = ArrayBuffer.isView(source) ? source.constructor.name : "";
  // Half floats are held as bits: a Uint16Array passes as it is; a Float16Array has these bits.
  if (
    name === Target.prototype.constructor.name ||
    (dtype === "float16" && name === "Float16Array")
  ) {
    const view = source as TensorData;
    return view.buffer instanceof ArrayBuffer && name !== "Float16Array"
      ? view
      : new Target(bytesOf(view).slice().buffer);
  }
  if (dtype === "bool" && name === "Uint8ClampedArray")
    return Uint8Array.from(source as Uint8ClampedArray);
  if (!Array.isArray(source) && (!ArrayBuffer.isView(source) || source instanceof DataView)) {
    throw new WebkilnError(
      "input-dtype",
      `A ${dtype} tensor can't be made from ${describe(source)}.`,
    );
  }
  const values = source as ArrayLike<number | bigint | boolean>;
  const target = new Target(values.length);
  const cast = caster(dtype);
  const exact = dtype.includes("int");
  for (let i = 0; i < values.length; i++) {
    const value = cast(values[i]!);
    target[i] = value;
    if (exact && target[i] !== value) refuse(values[i], dtype);
  }
  return target;
}

function describe(source: unknown): string {
  return source === null
    ? "null"
    : typeof source === "object"
      ? source.constructor.name
      : typeof source;
}

type Scalar = number | bigint | boolean;

function refuse(value: unknown, dtype: DType): never {
  throw new WebkilnError("input-dtype", `${String(value)} is not a value of ${dtype}.`);
}

/** How one element becomes `dtype`. Fractions and strays are refused, not rounded in silence. */
function caster(dtype: DType): (value: Scalar) => never {
  const number = (value: Scalar): number =>
    ["number", "bigint", "boolean"].includes(typeof value) ? Number(value) : refuse(value, dtype);
  const whole = (value: Scalar): number | bigint =>
    typeof value === "bigint" || Number.isSafeInteger(number(value))
      ? (value as number)
      : refuse(value, dtype);
  const cast = dtype.endsWith("int64")
    ? (v: Scalar) => BigInt(whole(v))
    : dtype.includes("int")
      ? (v: Scalar) => Number(whole(v))
      : dtype === "float16"
        ? (v: Scalar) => toHalf(number(v))
        : dtype === "bool"
          ? (v: Scalar) => Number(number(v) !== 0)
          : number;
  return cast as (value: Scalar) => never;
}

export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

const scratch = new DataView(new ArrayBuffer(4));

/** The bits of the IEEE 754 binary16 nearest to `value`, ties to even. */
export function toHalf(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are multiples of 2^-24, as are float32s in [0.5, 1): adding 0.5 rounds.
    scratch.setUint32(0, magnitude);
    scratch.setFloat32(0, scratch.getFloat32(0) + 0.5);
    return sign | (scratch.getUint32(0) - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** The number that the bits of an IEEE 754 binary16 stand for. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
