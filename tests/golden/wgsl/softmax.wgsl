fn infinity() -> f32 {
  var bits = 0x7f800000u;
  return bitcast<f32>(bits);
}

@group(0) @binding(0) var<storage, read> k0_b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> k0_b1: array<f32>;
@group(0) @binding(2) var<uniform> k0_params: array<vec4<i32>, 1>;
var<workgroup> k0_b2: array<f32, 64>;
var<workgroup> k0_b3: array<f32, 64>;
@compute @workgroup_size(64, 1, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = k0_params[0].x;
  let v1 = i32(group.x);
  let v2 = i32(local.x);
  let t0 = (v2 < 16);
  let t1 = (v2 < 4);
  let t2 = (v2 < 1);
  let v3 = v1;
  let v4 = v3;
  let v5 = v4;
  let t3 = (v5 * v0);
  var v6 = (-infinity());
  for (var v7: i32 = v2; v7 < v0; v7 += 64) {
    v6 = max(v6, k0_b0[(t3 + v7)]);
  }
  k0_b2[v2] = v6;
  workgroupBarrier();
  if (t0) {
    k0_b2[v2] = max(max(max(k0_b2[v2], k0_b2[(16 + v2)]), k0_b2[(32 + v2)]), k0_b2[(48 + v2)]);
  }
  workgroupBarrier();
  if (t1) {
    k0_b2[v2] = max(max(max(k0_b2[v2], k0_b2[(4 + v2)]), k0_b2[(8 + v2)]), k0_b2[(12 + v2)]);
  }
  workgroupBarrier();
  if (t2) {
    k0_b2[v2] = max(max(max(k0_b2[v2], k0_b2[(1 + v2)]), k0_b2[(2 + v2)]), k0_b2[(3 + v2)]);
  }
  workgroupBarrier();
  let v8 = k0_b2[0];
  var v9 = 0.0f;
  for (var v10: i32 = v2; v10 < v0; v10 += 64) {
    v9 += exp((k0_b0[(t3 + v10)] - v8));
  }
  k0_b3[v2] = v9;
  workgroupBarrier();
  if (t0) {
    k0_b3[v2] = (((k0_b3[v2] + k0_b3[(16 + v2)]) + k0_b3[(32 + v2)]) + k0_b3[(48 + v2)]);
  }
  workgroupBarrier();
  if (t1) {
    k0_b3[v2] = (((k0_b3[v2] + k0_b3[(4 + v2)]) + k0_b3[(8 + v2)]) + k0_b3[(12 + v2)]);
  }
  workgroupBarrier();
  if (t2) {
    k0_b3[v2] = (((k0_b3[v2] + k0_b3[(1 + v2)]) + k0_b3[(2 + v2)]) + k0_b3[(3 + v2)]);
  }
  workgroupBarrier();
  let v11 = k0_b3[0];
  for (var v12: i32 = v2; v12 < v0; v12 += 64) {
    let t4 = (t3 + v12);
    k0_b1[t4] = (exp((k0_b0[t4] - v8)) * (1.0f / v11));
  }
}
