/**
 * Puts declarations into one file. They have been written by tsc, a file a module; names are unique
 * over the runtime, so modules are joined as they are, and only what the entry exports keeps its
 * `export`.
 */
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const FROM = /^(?:import|export)\s+(?:type\s+)?\{[^}]*\}\s+from\s+"(\.[^"]+)\.js";\n?/gm;
const DECLARATION = /^export (declare )?(abstract )?(class|interface|type|function|const) (\w+)/gm;

export function bundleTypes(folder, entry) {
  const read = (name) => readFileSync(join(folder, `${name}.d.ts`), "utf8");
  const order = [];
  const visit = (name) => {
    if (order.includes(name) || name === entry) return;
    order.push(name);
    for (const [, path] of read(name).matchAll(FROM))
      visit(relative("/", join("/", dirname(name), path)));
  };
  const index = read(entry);
  const exported = new Set(
    [...index.matchAll(/\{([^}]*)\}/g)].flatMap(([, names]) =>
      names.split(",").map((name) => name.trim()),
    ),
  );
  for (const [, path] of index.matchAll(FROM)) visit(relative("/", join("/", path)));
  const parts = order.map((name) =>
    read(name)
      .replace(FROM, "")
      .replace(/^export \{\};\n?/gm, "")
      .replace(DECLARATION, (text, ambient = "", abstract = "", kind, declared) => {
        const declares = kind === "interface" || kind === "type" ? "" : "declare ";
        const exports = exported.has(declared) ? "export " : "";
        return `${exports}${declares}${abstract}${kind} ${declared}`;
      }),
  );
  return prune(parts.join("\n"), exported);
}

/** Drops declarations that nothing exported leads to. */
function prune(text, exported) {
  const blocks = text.split(
    /^(?=\/\*\*|(?:export )?(?:declare )?(?:class|interface|type|function|const) \w)/m,
  );
  const units = [];
  let comment = "";
  for (const block of blocks) {
    const name = /^(?:export )?(?:declare )?(?:class|interface|type|function|const) (\w+)/.exec(
      block,
    )?.[1];
    if (!name) {
      // A comment belongs to the declaration after it.
      comment = /^\/\*\*/.test(block) ? block : "";
      continue;
    }
    units.push({ name, text: comment + block });
    comment = "";
  }
  const needed = new Set(exported);
  for (let size = -1; size !== needed.size; ) {
    size = needed.size;
    for (const unit of units.filter(({ name }) => needed.has(name))) {
      for (const { name } of units)
        if (new RegExp(`\\b${name}\\b`).test(strip(unit.text))) needed.add(name);
    }
  }
  const kept = units.filter(({ name }) => needed.has(name)).map((unit) => unit.text.trim());
  return `${kept.join("\n\n")}\n\nexport {};\n`;
}

const strip = (text) => text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/.*$/gm, "");
