/** Which variant of the shader an adapter gets, and what is asked of its device. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { openDevice, usableShaders } = await load("gpu-device");

const hash = "0".repeat(64);
const variant = (file, features, storage) => ({
  file,
  sha256: hash,
  bytes: 1,
  features,
  limits: { maxComputeWorkgroupStorageSize: storage },
});
const target = {
  variants: [
    variant("kernels.f16.wgsl", ["shader-f16"], 8000),
    variant("kernels.wgsl", [], 16000),
  ],
  slots: [],
  limits: { maxBufferSize: 100 },
};

/** An adapter that gives the device it is asked for. */
function adapterOf(features, limits = {}) {
  return {
    features: new Set(features),
    limits: { maxBufferSize: 100, maxComputeWorkgroupStorageSize: 16384, ...limits },
    requestDevice: async (wanted) => wanted,
  };
}

const names = (shaders) => shaders.map(({ file }) => file);

for (const [what, features, files, needed] of [
  [
    "with float16",
    ["shader-f16", "subgroups"],
    ["kernels.f16.wgsl", "kernels.wgsl"],
    ["shader-f16"],
  ],
  ["without float16, as SwiftShader", ["subgroups"], ["kernels.wgsl"], []],
]) {
  test(`an adapter ${what}`, async () => {
    const adapter = adapterOf(features);
    const shaders = usableShaders(target, adapter);
    assert.deepEqual(names(shaders), files);
    const device = await openDevice(target, shaders, adapter);
    assert.deepEqual(device.requiredFeatures, needed);
    // What the variant needs that is taken when the first one is refused.
    assert.deepEqual(device.requiredLimits, { ...target.limits, ...shaders.at(-1).limits });
  });
}

test("limits count for each variant", () => {
  const small = adapterOf(["shader-f16"], { maxComputeWorkgroupStorageSize: 8000 });
  assert.deepEqual(names(usableShaders(target, small)), ["kernels.f16.wgsl"]);
  const other = { ...target, variants: [...target.variants].reverse() };
  assert.deepEqual(names(usableShaders(other, small)), ["kernels.f16.wgsl"]);
});

test("what is lacking is said of the variant that needs least", () => {
  const none = adapterOf([], { maxBufferSize: 99, maxComputeWorkgroupStorageSize: undefined });
  assert.throws(() => usableShaders(target, none), (error) => {
    assert.equal(error.code, "webgpu-limits");
    assert.match(error.message, /maxBufferSize 100 \(it has 99\)/);
    assert.match(error.message, /StorageSize 16000 \(it has no such limit\)/);
    assert.doesNotMatch(error.message, /f16/);
    return true;
  });
});
