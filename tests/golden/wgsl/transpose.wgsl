@group(0) @binding(0) var<storage, read> k0_b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> k0_b1: array<f32>;
@compute @workgroup_size(64, 1, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = i32(group.x);
  let v1 = i32(local.x);
  let v2 = ((v0 * 64) + v1);
  let v3 = (v2 % 15);
  let v4 = (v2 / 15);
  if ((v2 < 105)) {
    k0_b1[((v4 * 15) + v3)] = k0_b0[(v4 + (v3 * 7))];
  }
}
