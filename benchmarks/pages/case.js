// A case's inputs and expected outputs, and whether an engine's outputs are right.

const ARRAYS = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array };

/** `{name, dims, tolerance, inputs, outputs}`; tensors are `{name, dtype, shape, data}`. */
export async function fetchCase(name) {
  const [description, data] = await Promise.all([
    fetch(`./cases/${name}/case.json`).then((response) => response.json()),
    fetch(`./cases/${name}/data.bin`).then((response) => response.arrayBuffer()),
  ]);
  const tensor = ({ offset, bytes, ...entry }) => {
    const Array = ARRAYS[entry.dtype];
    return { ...entry, data: new Array(data, offset, bytes / Array.BYTES_PER_ELEMENT) };
  };
  return { ...description, inputs: description.inputs.map(tensor), outputs: description.outputs.map(tensor) };
}

/** The largest error over all outputs, relative to each output's largest value; throws when above the tolerance. */
export function check(engine, { outputs, tolerance }, actual) {
  let worst = 0;
  for (const { name, data: expected } of outputs) {
    const values = actual[name];
    if (values?.length !== expected.length) {
      throw new Error(`${engine}: output ${name} has ${values?.length} elements, not ${expected.length}`);
    }
    let scale = 0;
    let error = 0;
    for (let i = 0; i < expected.length; i++) {
      scale = Math.max(scale, Math.abs(expected[i]));
      const difference = Math.abs(values[i] - expected[i]);
      error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
    }
    worst = Math.max(worst, error / scale);
  }
  if (!(worst <= tolerance)) throw new Error(`${engine}: relative error ${worst} is above ${tolerance}`);
  return worst;
}
