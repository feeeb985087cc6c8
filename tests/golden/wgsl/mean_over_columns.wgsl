@group(0) @binding(0) var<storage, read> k0_b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> k0_b1: array<vec4<f32>>;
@compute @workgroup_size(64, 1, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = i32(group.x);
  let v1 = i32(local.x);
  let v2 = ((v0 * 64) + v1);
  let v3 = (v2 & 1);
  let v4 = (v2 >> 1u);
  if ((v2 < 4)) {
    let v5 = (v3 * 4);
    let t0 = (v5 >> 2u);
    var v6 = vec4<f32>(0.0f);
    for (var v7: i32 = 0; v7 < 9; v7++) {
      v6 += k0_b0[(((v4 * 18) + (v7 * 2)) + t0)];
    }
    k0_b1[((v4 * 2) + t0)] = (v6 * 0.11111111f);
  }
}
