/** Integer expressions over the symbolic dimensions, as docs/plan.md defines them. */

export type Operator = "+" | "-" | "*" | "//" | "%" | "min" | "max" | "ceildiv";

/** A number, a dimension's name, or an operation on two expressions. */
export type Expression = number | string | readonly [Operator, Expression, Expression];

/** The value of every dimension, by name. */
export type Dims = Readonly<Record<string, number>>;

const OPERATIONS: Readonly<Record<Operator, (a: number, b: number) => number>> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "//": (a, b) => Math.floor(a / b),
  "%": (a, b) => a - b * Math.floor(a / b),
  min: Math.min,
  max: Math.max,
  ceildiv: (a, b) => Math.ceil(a / b),
};

export function isOperator(value: unknown): value is Operator {
  return typeof value === "string" && Object.hasOwn(OPERATIONS, value);
}

/** The value of `expression`. Division floors, as in Python. */
export function evaluate(expression: Expression, dims: Dims): number {
  if (typeof expression === "number") return expression;
  if (typeof expression === "string") return dims[expression]!;
  const [operator, a, b] = expression;
  return OPERATIONS[operator](evaluate(a, dims), evaluate(b, dims));
}

/** The expression as a person would write it: `sequence * 2`. */
export function print(expression: Expression): string {
  if (typeof expression !== "object") return String(expression);
  const [operator, a, b] = expression;
  if (/[a-z]/.test(operator)) return `${operator}(${print(a)}, ${print(b)})`;
  return `(${print(a)} ${operator} ${print(b)})`;
}
