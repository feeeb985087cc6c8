/**
 * Builds dist/, whose layout is that of a bundle:
 *
 *   webkiln.js, webkiln.worker.js, webkiln.d.ts    every bundle has these
 *   webkiln.text.js                                the tokenizer: bundles whose task needs it
 *   tasks/<task>.js, tasks/*.worker.js             a bundle has those of its task
 *   app/*                                          the pages: .js, .css and .html
 *   head.js                                        a script for the head of pages, not a file of bundles
 *   NOTICES.txt                                    licences of what is bundled
 *   manifest.json                                  the files of the core, each task, each page
 *
 * Tasks and pages import "../index.js", which becomes "../webkiln.js": one copy of the runtime in a
 * page.
 */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { bundleTypes } from "./types.mjs";

const root = dirname(fileURLToPath(import.meta.url));
const src = join(root, "src");
// Built aside and moved at the end: a build that fails or is interrupted leaves the last good one.
const dist = join(root, `.dist-${process.pid}`);
const list = (folder) => (existsSync(join(src, folder)) ? readdirSync(join(src, folder)) : []);

/** Imports of one built file from another stay imports. */
const shared = {
  name: "shared",
  setup({ onResolve }) {
    onResolve({ filter: /^(?:\.\.\/)+index\.js$/ }, () => ({ path: "../webkiln.js", external: true }));
    onResolve({ filter: /^@huggingface\/tokenizers$/ }, () => ({
      path: "../webkiln.text.js",
      external: true,
    }));
  },
};

const options = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
  charset: "utf8",
};

/** A task is a file that exports `create`; a worker is named so. */
const isEntry = (name) =>
  name.endsWith(".worker.ts") ||
  (name.endsWith(".ts") &&
    /^export (const|function|async function) create\b/m.test(
      readFileSync(join(src, "tasks", name), "utf8"),
    ));

/** A page's script is a file that no other one imports. */
const isPage = (name) =>
  name.endsWith(".ts") &&
  !name.endsWith(".d.ts") &&
  !list("app").some(
    (other) =>
      other.endsWith(".ts") &&
      readFileSync(join(src, "app", other), "utf8").includes(`"./${name.replace(/\.ts$/, ".js")}"`),
  );

async function main() {
  mkdirSync(dist);
  const results = [
    await build({
      ...options,
      entryPoints: {
        webkiln: "src/index.ts",
        "webkiln.worker": "src/worker.ts",
        "webkiln.text": "src/text.ts",
      },
      outdir: dist,
    }),
  ];
  await build({ ...options, format: "iife", entryPoints: { head: "src/head.ts" }, outdir: dist });
  const tasks = list("tasks").filter(isEntry);
  const pages = list("app").filter(isPage);
  for (const [folder, names] of [
    ["tasks", tasks],
    ["app", pages],
  ]) {
    if (!names.length) continue;
    const entryPoints = names.map((name) => `src/${folder}/${name}`);
    const splitting = folder === "app";
    results.push(
      await build({
        ...options,
        entryPoints,
        outdir: join(dist, folder),
        plugins: [shared],
        splitting,
      }),
    );
  }
  for (const name of list("app")) {
    if (/\.(css|html|js|svg|png|webmanifest)$/.test(name))
      cpSync(join(src, "app", name), join(dist, "app", name));
  }
  writeTypes();
  writeFileSync(join(dist, "NOTICES.txt"), notices(results));
  writeFileSync(
    join(dist, "manifest.json"),
    JSON.stringify(manifest(tasks, pages), undefined, 2) + "\n",
  );
}

function writeTypes() {
  const types = join(dist, "types");
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  execFileSync(
    process.execPath,
    [tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", types],
    { cwd: root, stdio: "inherit" },
  );
  writeFileSync(join(dist, "webkiln.d.ts"), bundleTypes(types, "index"));
  rmSync(types, { recursive: true });
}

/** The licence of every package that ended up in a file. */
function notices(results) {
  const inputs = results.flatMap(({ metafile }) =>
    Object.values(metafile.outputs).flatMap((out) => Object.entries(out.inputs)),
  );
  const packages = new Set();
  for (const [path, { bytesInOutput }] of inputs) {
    const match = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (match && bytesInOutput) packages.add(match[1]);
  }
  const parts = [...packages].sort().map((name) => {
    const folder = join(root, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file
      ? readFileSync(join(folder, file), "utf8").trim()
      : `Licensed under ${license}.`;
    return `${name} ${version} (${license})\n${"-".repeat(72)}\n${text}\n`;
  });
  return ["The webkiln runtime contains the following third-party software.\n", ...parts].join(
    "\n",
  );
}

function manifest(tasks, pages) {
  const imported = (name, seen = new Set()) => {
    const code = readFileSync(join(dist, name), "utf8");
    const found = [...code.matchAll(/["'`](\.\.?\/[\w./-]+\.js)["'`]/g)].map((match) =>
      relative(dist, join(dist, dirname(name), match[1])),
    );
    for (const file of found.filter((entry) => !seen.has(entry) && existsSync(join(dist, entry)))) {
      seen.add(file);
      imported(file, seen);
    }
    return seen;
  };
  const core = ["webkiln.js", "webkiln.worker.js", "webkiln.d.ts", "NOTICES.txt"];
  const needs = (folder, names) =>
    Object.fromEntries(
      names.map((name) => {
        const file = `${folder}/${name.replace(/\.ts$/, ".js")}`;
        return [
          name.replace(/\.ts$/, ""),
          [file, ...imported(file)].filter((entry) => !core.includes(entry)),
        ];
      }),
    );
  return {
    core,
    tasks: needs(
      "tasks",
      tasks.filter((name) => !name.endsWith(".worker.ts")),
    ),
    app: needs("app", pages),
  };
}

try {
  await main();
  rmSync(join(root, "dist"), { recursive: true, force: true });
  renameSync(dist, join(root, "dist"));
} finally {
  rmSync(dist, { recursive: true, force: true });
}
