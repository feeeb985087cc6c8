/**
 * plan.json: its types, and the strict reader that stands between the file and the rest of the
 * runtime.
 */
import { evaluate, isOperator, type Expression } from "./expression.js";
import {
  array,
  index,
  integer,
  invalid,
  matching,
  nullable,
  number,
  object,
  oneOf,
  optional,
  record,
  string,
  type Reader,
} from "./read.js";
import { DTYPES, type DType } from "./tensor.js";

/** A symbolic dimension and its bounds, both inclusive. */
export interface Dim {
  readonly name: string;
  readonly min: number;
  readonly max: number;
}

/** How elements are stored in memory. */
export type Storage = "float32" | "int32" | "uint32" | "float16" | "int8" | "uint8";

export type Access = "read" | "write" | "read_write";

export interface PlanPort {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly Expression[];
  readonly buffer: number;
}

/** What the steps of both targets say: the model's nodes, and the cost. */
export interface Step {
  readonly label: string;
  readonly flops: Expression;
  readonly bytes: Expression;
}

/** A step inside the wasm module; `kind` is the rule that scheduled it. */
export interface WasmStep extends Step {
  readonly kind: string;
}

/** A WebGPU dispatch: one kernel on given buffers. */
export interface Dispatch extends Step {
  readonly kernel: number;
  readonly buffers: readonly number[];
  readonly params: readonly Expression[];
  readonly workgroups: readonly Expression[];
}

export interface PlanProgram {
  readonly name: string;
  readonly inputs: readonly PlanPort[];
  readonly outputs: readonly PlanPort[];
  /** Empty where the target was not built. */
  readonly steps: { readonly wasm: readonly WasmStep[]; readonly webgpu: readonly Dispatch[] };
}

export interface Kernel {
  readonly name: string;
  readonly access: readonly Access[];
  readonly params: number;
  readonly kind: string;
}

export interface PlanBuffer {
  readonly name: string;
  readonly dtype: Storage;
  readonly bytes: number;
  readonly role: "input" | "output" | "constant" | "temporary" | "state";
  readonly wasm: number | null;
  readonly webgpu: { readonly slot: number; readonly offset: number } | null;
}

export interface Shard {
  readonly file: string;
  readonly sha256: string;
  readonly offset: number;
  readonly bytes: number;
  /** The SHA-256 of every `pieceBytes` bytes; the last piece may be shorter. */
  readonly pieces: readonly string[];
  /** Index of the table that all of it belongs to; null: every run needs it. */
  readonly table: number | null;
}

/**
 * Weights of which a run of a program reads only the rows that an input of it names, both by index. A
 * group of rows lies together. A negative number counts from the end.
 */
export interface Table {
  readonly offset: number;
  readonly rows: number;
  readonly group: number;
  readonly groupBytes: number;
  readonly namedBy: readonly { readonly program: number; readonly input: number }[];
}

export interface Variant {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly features: readonly string[];
}

export interface WasmTarget {
  readonly variants: readonly Variant[];
  readonly memory: {
    readonly bytes: number;
    readonly dims: number;
    readonly weights: number;
    readonly stacks: { readonly offset: number; readonly bytes: number };
  };
  readonly maxThreads: number;
}

/** A module of the same kernels, and the limits that an adapter must offer for it. */
export interface Shader extends Variant {
  readonly limits: Readonly<Record<string, number>>;
}

/** `variants` are best first; `limits` hold for each of them. */
export interface WebGPUTarget {
  readonly variants: readonly Shader[];
  readonly slots: readonly { readonly bytes: number; readonly weights: number | null }[];
  readonly limits: Readonly<Record<string, number>>;
}

/** A tensor in golden.bin. */
export interface GoldenTensor {
  readonly offset: number;
  readonly bytes: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export interface Golden {
  readonly dims: Readonly<Record<string, number>>;
  readonly inputs: Readonly<Record<string, GoldenTensor>>;
  readonly outputs: Readonly<Record<string, GoldenTensor>>;
  readonly file: string;
  readonly rtol: number;
  readonly atol: number;
}

export interface Plan {
  readonly format: "webkiln.plan";
  readonly version: 1;
  readonly generator: string;
  readonly name: string;
  readonly dims: readonly Dim[];
  readonly programs: readonly PlanProgram[];
  readonly kernels: readonly Kernel[];
  readonly buffers: readonly PlanBuffer[];
  readonly weights: {
    readonly bytes: number;
    readonly pieceBytes: number;
    readonly shards: readonly Shard[];
    readonly tables: readonly Table[];
  };
  readonly wasm: WasmTarget | null;
  readonly webgpu: WebGPUTarget | null;
  readonly golden: readonly Golden[];
  readonly task: { readonly name: string; readonly [setting: string]: unknown };
}

// A file's name can't lead out of the model's folder.
const file = matching(/^[\w-][\w.-]*$/, "a plain file name");
const sha256 = matching(/^[0-9a-f]{64}$/, "a SHA-256 in lower-case hexadecimal");
const dtype = oneOf(...(DTYPES as readonly DType[]));
const asset = { file, sha256, bytes: integer() };

const dim = object<Dim>({
  name: matching(/^[A-Za-z_]\w*$/, "a name"),
  min: integer(),
  max: integer(),
});

const kernel = object<Kernel>({
  name: matching(/^[A-Za-z_]\w*$/, "a name"),
  access: array(oneOf<Access>("read", "write", "read_write"), 1),
  params: integer(),
  kind: string,
});

const buffer = object<PlanBuffer>({
  name: string,
  dtype: oneOf<Storage>("float32", "int32", "uint32", "float16", "int8", "uint8"),
  bytes: integer(),
  role: oneOf<PlanBuffer["role"]>("input", "output", "constant", "temporary", "state"),
  wasm: nullable(integer(0, 4)),
  webgpu: nullable(object({ slot: integer(), offset: integer(0, 256) })),
});

const shard = object<Shard>({
  ...asset,
  offset: integer(0, 4),
  pieces: array(sha256),
  table: nullable(integer()),
});

const table = object<Table>({
  offset: integer(0, 4),
  rows: integer(1),
  group: integer(1),
  groupBytes: integer(1),
  namedBy: array(object<Table["namedBy"][number]>({ program: integer(), input: integer() }), 1),
});

const weights = object<Plan["weights"]>({
  bytes: integer(),
  pieceBytes: integer(4, 4),
  shards: array(shard),
  tables: optional(array(table), []),
});

const wasm = object<WasmTarget>({
  variants: array(object<Variant>({ ...asset, features: array(string) }), 1),
  memory: object<WasmTarget["memory"]>({
    bytes: integer(65536, 65536),
    dims: integer(0, 4),
    weights: integer(0, 4),
    stacks: object({ offset: integer(0, 16), bytes: integer(1024, 16) }),
  }),
  maxThreads: integer(1),
});

const webgpu = object<WebGPUTarget>({
  variants: array(
    object<Shader>({ ...asset, features: array(string), limits: record(integer()) }),
    1,
  ),
  slots: array(object({ bytes: integer(), weights: nullable(integer(0, 4)) })),
  limits: record(integer()),
});

const goldenTensor = object<GoldenTensor>({
  offset: integer(0, 8),
  bytes: integer(),
  shape: array(integer()),
  dtype,
});

const golden = object<Golden>({
  dims: record(integer()),
  inputs: record(goldenTensor),
  outputs: record(goldenTensor),
  file,
  rtol: number,
  atol: number,
});

const task: Reader<Plan["task"]> = (value, path) => ({
  ...(value as object),
  ...object<{ name: string }>({ name: matching(/^[a-z0-9-]+$/, "a task's name") })(value, path),
});

/** Expressions may name only the plan's own dimensions. */
function expressionReader(names: ReadonlySet<string>): Reader<Expression> {
  const read: Reader<Expression> = (value, path) => {
    if (Number.isSafeInteger(value)) return value as number;
    if (typeof value === "string") {
      return names.has(value)
        ? value
        : invalid(path, `names the dimension "${value}", which the plan lacks`);
    }
    if (!Array.isArray(value) || value.length !== 3 || !isOperator(value[0])) {
      return invalid(path, `is not an expression: ${JSON.stringify(value) ?? "missing"}`);
    }
    return [value[0], read(value[1], `${path}[1]`), read(value[2], `${path}[2]`)];
  };
  return read;
}

function programReader(
  names: ReadonlySet<string>,
  kernels: number,
  buffers: number,
): Reader<PlanProgram> {
  const expression = expressionReader(names);
  const at = index(buffers, "buffers");
  const port = object<PlanPort>({ name: string, dtype, shape: array(expression), buffer: at });
  const step = { label: string, flops: expression, bytes: expression };
  return object<PlanProgram>({
    name: string,
    inputs: array(port),
    outputs: array(port, 1),
    steps: object<PlanProgram["steps"]>({
      wasm: optional(array(object<WasmStep>({ ...step, kind: string })), []),
      webgpu: optional(
        array(
          object<Dispatch>({
            ...step,
            kernel: index(kernels, "kernels"),
            buffers: array(at, 1),
            params: array(expression),
            workgroups: array(expression),
          }),
        ),
        [],
      ),
    }),
  });
}

/** The shards alone, so that they are on their way while the rest of the plan is read. */
export function readShards(json: unknown): readonly Shard[] {
  return object({ weights })(json, "").weights.shards;
}

/** The shards that every run needs. */
export function neededFirst(shards: readonly Shard[]): readonly Shard[] {
  return shards.filter(({ table }) => table === null);
}

/**
 * Reads a plan, refusing what the runtime could not run.
 * @throws WebkilnError "plan-invalid", naming the path of what is wrong.
 */
export function readPlan(json: unknown): Plan {
  const head = object<Pick<Plan, "format" | "version" | "dims" | "kernels" | "buffers">>({
    format: oneOf("webkiln.plan"),
    version: oneOf(1),
    dims: array(dim),
    kernels: array(kernel),
    buffers: array(buffer),
  })(json, "");
  const names = new Set(head.dims.map(({ name }) => name));
  const body = object<Omit<Plan, keyof typeof head>>({
    generator: string,
    name: string,
    programs: array(programReader(names, head.kernels.length, head.buffers.length), 1),
    weights,
    wasm: nullable(wasm),
    webgpu: nullable(webgpu),
    golden: optional(array(golden), []),
    task,
  })(json, "");
  const plan: Plan = { ...head, ...body };
  checkDims(plan);
  plan.programs.forEach((program, i) => checkSteps(plan, program, `programs[${i}]`));
  checkWeights(plan);
  checkTables(plan);
  plan.buffers.forEach((entry, i) => checkPlaces(plan, entry, `buffers[${i}]`));
  if (!plan.wasm && !plan.webgpu) invalid("", "has neither a wasm nor a webgpu target");
  return plan;
}

function checkDims({ dims, wasm: target }: Plan): void {
  dims.forEach(({ min, max }, i) => {
    if (min > max) invalid(`dims[${i}]`, `has min ${min} above max ${max}`);
  });
  // The runtime owns addresses 0-1023; synchronisation words begin at 512.
  if (target && target.memory.dims + 4 * dims.length > 512)
    invalid("wasm.memory.dims", "leaves too little room");
}

function checkSteps(plan: Plan, program: PlanProgram, path: string): void {
  const { buffers, kernels } = plan;
  const place = (key: string, target: "wasm" | "webgpu", index: number): void => {
    if (buffers[index]![target] === null) {
      invalid(`${path}.${key}`, `names buffer ${index}, which has no place on ${target}`);
    }
  };
  for (const target of ["wasm", "webgpu"] as const) {
    if (!plan[target]) continue;
    program.inputs.forEach(({ buffer }, i) => place(`inputs[${i}]`, target, buffer));
    program.outputs.forEach(({ buffer }, i) => place(`outputs[${i}]`, target, buffer));
  }
  program.steps.webgpu.forEach((step, i) => {
    const { name, access, params } = kernels[step.kernel]!;
    const count = (key: string, actual: number, wanted: number): void => {
      if (actual !== wanted) {
        invalid(
          `${path}.steps.webgpu[${i}].${key}`,
          `has ${actual} entries, where ${name} takes ${wanted}`,
        );
      }
    };
    count("buffers", step.buffers.length, access.length);
    count("params", step.params.length, params);
    count("workgroups", step.workgroups.length, 3);
    step.buffers.forEach((buffer) => place(`steps.webgpu[${i}].buffers`, "webgpu", buffer));
  });
}

/** Shards must tile the weight space, in order, and pieces their shards. */
function checkWeights({ weights: { bytes, pieceBytes, shards } }: Plan): void {
  let end = 0;
  shards.forEach((shard, i) => {
    if (shard.offset !== end)
      invalid(`weights.shards[${i}].offset`, `should be ${end}, but is ${shard.offset}`);
    end += shard.bytes;
    const pieces = Math.ceil(shard.bytes / pieceBytes);
    if (shard.pieces.length !== pieces)
      invalid(`weights.shards[${i}].pieces`, `should be ${pieces}, but are ${shard.pieces.length}`);
  });
  if (end !== bytes) invalid("weights.bytes", `is ${bytes}, but the shards have ${end}`);
}

/** A shard of a table has nothing but its rows, which integers among the inputs name. */
function checkTables({ weights: { shards, tables }, programs, buffers }: Plan): void {
  shards.forEach(({ table, offset, bytes }, i) => {
    if (table === null) return;
    const path = `weights.shards[${i}].table`;
    const at = index(tables.length, "weights.tables")(table, path);
    const { offset: start, rows, group, groupBytes } = tables[at]!;
    if (offset < start || offset + bytes > start + Math.ceil(rows / group) * groupBytes)
      invalid(path, "has less than the shard");
  });
  tables.forEach(({ namedBy }, i) =>
    namedBy.forEach(({ program, input }, k) => {
      const path = `weights.tables[${i}].namedBy[${k}]`;
      const { inputs } = programs[index(programs.length, "programs")(program, `${path}.program`)]!;
      const { buffer } = inputs[index(inputs.length, "its inputs")(input, `${path}.input`)]!;
      if (buffers[buffer]!.dtype !== "int32") invalid(path, "is not of int32");
    }),
  );
}

/** Every buffer lies within memory, and within its slot. */
function checkPlaces(
  { wasm: target, webgpu: gpu, weights: { bytes: weightBytes } }: Plan,
  entry: PlanBuffer,
  path: string,
): void {
  if (target) {
    const { memory } = target;
    if (entry.wasm !== null && entry.wasm + entry.bytes > memory.bytes)
      invalid(`${path}.wasm`, "ends beyond wasm.memory.bytes");
    if (memory.weights + weightBytes > memory.bytes)
      invalid("wasm.memory.weights", "leaves too little room");
  }
  const place = entry.webgpu;
  if (gpu && place) {
    const slot =
      gpu.slots[place.slot] ??
      invalid(`${path}.webgpu.slot`, `is ${place.slot}, which does not exist`);
    if (place.offset + entry.bytes > slot.bytes)
      invalid(`${path}.webgpu`, `ends beyond slot ${place.slot}`);
  }
}

/** The upper bound of every dimension. */
export function upperBounds(plan: Plan): Record<string, number> {
  return Object.fromEntries(plan.dims.map(({ name, max }) => [name, max]));
}

/** The sizes of a shape. */
export function resolve(
  shape: readonly Expression[],
  dims: Readonly<Record<string, number>>,
): number[] {
  return shape.map((size) => evaluate(size, dims));
}
