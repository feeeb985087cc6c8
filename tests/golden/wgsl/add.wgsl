@group(0) @binding(0) var<storage, read> k0_b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k0_b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k0_b2: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> k0_params: array<vec4<i32>, 1>;
@compute @workgroup_size(64, 1, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = k0_params[0].x;
  let v1 = i32(group.x);
  let v2 = i32(local.x);
  let v3 = ((v1 * 64) + v2);
  let v4 = (v3 & 1);
  let v5 = (v3 >> 1u);
  if ((v3 < (v0 * 2))) {
    let v6 = (v4 * 4);
    let t0 = (v6 >> 2u);
    let t1 = ((v5 * 2) + t0);
    k0_b2[t1] = (k0_b0[t1] + k0_b1[t0]);
  }
}
