// The flags of the WebGPU specification, which TypeScript's own DOM library leaves out.
declare const GPUBufferUsage: Readonly<
  Record<"MAP_READ" | "COPY_SRC" | "COPY_DST" | "UNIFORM" | "STORAGE" | "QUERY_RESOLVE", number>
>;
declare const GPUMapMode: Readonly<Record<"READ", number>>;
declare const GPUShaderStage: Readonly<Record<"COMPUTE", number>>;
