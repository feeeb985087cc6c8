/** webkiln.d.ts stands alone, and says what webkiln.js has. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

const USE = `
import { load, pipeline, Tensor, WebkilnError } from "./webkiln.js";
import type { Model, Pipeline, WebkilnErrorCode } from "./webkiln.js";
const stop = new AbortController();
const model: Model = await load("./model/", {
  device: "auto", threads: 2, signal: stop.signal,
  onProgress: ({ loaded, total, phase }) => [loaded / total, phase.length],
});
const x = new Tensor("int64", [1, 2, 3], [1, 3]);
const { y } = await model.run({ x }, { signal: stop.signal });
const floats: Float32Array = y!.toFloat32();
const classify: Pipeline<string, { label: string }[]> = await pipeline("./");
const label: string = (await classify("text"))[0]!.label;
const codes: WebkilnErrorCode[] = ["aborted"];
const first: number | undefined = (await model.profile())[0]?.ms ?? model.dims[0]?.max;
if (new Error() instanceof WebkilnError) console.log(floats, label, codes, first);
// @ts-expect-error there is no such device
await load("./model/", { device: "tpu" });
// @ts-expect-error inputs are tensors
await model.run({ x: [1, 2, 3] });
// @ts-expect-error there is no such dtype
new Tensor("float8", [1]);
// @ts-expect-error not part of the public surface
import { readPlan } from "./webkiln.js";
`;

test("webkiln.d.ts compiles alone, without skipLibCheck", () => {
  const folder = mkdtempSync(join(tmpdir(), "webkiln-types-"));
  try {
    cpSync(join(root, "dist/webkiln.d.ts"), join(folder, "webkiln.d.ts"));
    writeFileSync(join(folder, "use.ts"), USE);
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const options =
      "--noEmit --strict --noUncheckedIndexedAccess --target es2022 --module esnext " +
      "--moduleResolution bundler";
    execFileSync(process.execPath, [tsc, ...options.split(" "), "--types", "", "use.ts"], {
      cwd: folder,
      encoding: "utf8",
    });
  } catch (error) {
    assert.fail(error.stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("it declares the values that webkiln.js exports", () => {
  const types = readFileSync(join(root, "dist/webkiln.d.ts"), "utf8");
  // A function with several signatures is declared as often.
  const declared = new Set(
    [...types.matchAll(/^export declare \w+ (\w+)/gm)].map(([, name]) => name),
  );
  const code = readFileSync(join(root, "dist/webkiln.js"), "utf8");
  const exported = /export\{([^}]*)\}/
    .exec(code)[1]
    .split(",")
    .map((name) => name.split(" as ").pop().trim());
  assert.deepEqual([...declared].sort(), exported.sort());
});

test("core and worker stay within 25 KB gzipped", async () => {
  const { gzipSync } = await import("node:zlib");
  const size = (name) => gzipSync(readFileSync(join(root, "dist", name)), { level: 9 }).length;
  assert.ok(size("webkiln.js") + size("webkiln.worker.js") < 25 * 1024);
});
