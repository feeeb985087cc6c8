// Cold start: from the navigation to the first result, one engine a page load, told by the address:
// cold.html?engine=ort&case=minilm&device=wasm&threads=2. Says what came of it to the server.

import { check, fetchCase } from "./case.js";
import { ENGINES } from "./engines.js";

const query = new URLSearchParams(location.search);

async function start() {
  const name = query.get("case");
  const testcase = fetchCase(name);
  const options = { device: query.get("device"), threads: Number(query.get("threads")) };
  const engine = await ENGINES[query.get("engine")](name, testcase, options);
  const outputs = await engine.run();
  const ms = performance.now(); // since the navigation started
  check(query.get("engine"), await testcase, outputs);
  return ms;
}

const outcome = await start().then(
  (ms) => ({ ms }),
  (error) => ({ error: String(error?.stack ?? error) }),
);
await fetch("./report", { method: "POST", body: JSON.stringify(outcome) });
