/**
 * Random numbers that are a function of seed and counter, so that an answer can be taken up where
 * it was, and a GPU gives the same ones as the host: PCG3D of Jarzynski and Olano, "Hash Functions
 * for GPU Rendering", JCGT 9(3), 2020.
 */

/** A seed as two 32-bit words. Whole numbers up to 2^53 differ from one another. */
export function seedWords(seed: number): readonly [number, number] {
  return [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
}

/** A seed for those who gave none. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** The `counter`-th number of a seed: uniform in [0, 1), a multiple of 2^-24. */
export function uniform(seed: number, counter: number): number {
  let [x, y] = seedWords(seed);
  let z = counter >>> 0;
  const step = (value: number): number => (Math.imul(value, 1664525) + 1013904223) | 0;
  [x, y, z] = [step(x), step(y), step(z)];
  const mix = (): void => {
    x = (x + Math.imul(y, z)) | 0;
    y = (y + Math.imul(z, x)) | 0;
    z = (z + Math.imul(x, y)) | 0;
  };
  mix();
  [x, y, z] = [x ^ (x >>> 16), y ^ (y >>> 16), z ^ (z >>> 16)];
  mix();
  return (x >>> 8) / 2 ** 24;
}
