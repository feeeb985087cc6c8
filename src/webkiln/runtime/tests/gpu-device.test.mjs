/** Which variant of the shader an adapter gets, and what is asked of its device. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { chooseShader, openDevice } = await load("gpu-device");

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

for (const [what, features, file] of [
  ["with float16", ["shader-f16", "subgroups"], "kernels.f16.wgsl"],
  ["without float16, as SwiftShader", ["subgroups"], "kernels.wgsl"],
]) {
  test(`an adapter ${what}`, async () => {
    const adapter = adapterOf(features);
    const shader = chooseShader(target, adapter);
    assert.equal(shader.file, file);
    const device = await openDevice(target, shader, adapter);
    assert.deepEqual(device.requiredFeatures, shader.features);
    assert.deepEqual(device.requiredLimits, { ...target.limits, ...shader.limits });
  });
}

test("limits count for each variant", () => {
  const small = adapterOf(["shader-f16"], { maxComputeWorkgroupStorageSize: 8000 });
  assert.equal(chooseShader(target, small).file, "kernels.f16.wgsl");
  const other = { ...target, variants: [...target.variants].reverse() };
  assert.equal(chooseShader(other, small).file, "kernels.f16.wgsl");
});

test("what is lacking is said of the variant that needs least", () => {
  const none = adapterOf([], { maxBufferSize: 99, maxComputeWorkgroupStorageSize: undefined });
  assert.throws(() => chooseShader(target, none), (error) => {
    assert.equal(error.code, "webgpu-limits");
    assert.match(error.message, /maxBufferSize 100 \(it has 99\)/);
    assert.match(error.message, /StorageSize 16000 \(it has no such limit\)/);
    assert.doesNotMatch(error.message, /f16/);
    return true;
  });
});
