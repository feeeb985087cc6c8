/** The lines with which someone runs this model in a page of their own. */
import type { Model, Port } from "../index.js";

type Extent = Port["shape"][number];

const SPELLING: Readonly<Record<string, string>> = { "//": "÷", ceildiv: "÷", "*": "×" };

/** An extent for people: a number, a name, or a small formula. */
export function extentText(extent: Extent): string {
  if (!Array.isArray(extent)) return String(extent);
  const [operator, a, b] = extent as [string, Extent, Extent];
  return `(${extentText(a)} ${SPELLING[operator] ?? operator} ${extentText(b)})`;
}

export function shapeText(shape: readonly Extent[]): string {
  return shape.length ? shape.map(extentText).join(" × ") : "scalar";
}

function isNumber(extent: Extent): extent is number {
  return typeof extent === "number";
}

function variable(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}

/** JavaScript that loads the model from this folder and runs it once on zeros. */
export function snippet({ inputs, outputs, dims }: Model): string {
  const sizes = dims.map(({ name, min, max }) =>
    `const ${name} = ${Math.max(min, Math.min(max, 16))}  // ${min} to ${max}`);
  const feeds = inputs.map(({ name, dtype, shape }) => {
    const extents = shape.map((extent) => (isNumber(extent) ? String(extent) : extentText(extent)));
    const zero = dtype.endsWith("int64") ? "0n" : "0";
    const count = shape.every(isNumber)
      ? String(shape.reduce((product, size) => product * size, 1)) : extents.join(" * ");
    const data = `Array(${count}).fill(${zero})`;
    return `  ${variable(name)}: new Tensor("${dtype}", ${data}, [${extents.join(", ")}]),`;
  });
  const [first] = outputs;
  return [
    'import { load, Tensor } from "./webkiln.js"', "",
    'const model = await load("./model/")', ...sizes,
    "const outputs = await model.run({", ...feeds, "})",
    `console.log(outputs[${JSON.stringify(first?.name ?? "")}].data)`,
  ].join("\n");
}
