@group(0) @binding(0) var<storage, read> k0_b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k0_b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k0_b2: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> k0_b3: array<vec4<f32>>;
var<workgroup> k0_b4: array<f32, 64>;
var<workgroup> k0_b5: array<f32, 64>;
@compute @workgroup_size(64, 1, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = i32(group.x);
  let v1 = i32(local.x);
  let t0 = (v1 * 4);
  let t1 = (v1 < 16);
  let t2 = (v1 < 4);
  let t3 = (v1 < 1);
  let v2 = v0;
  let v3 = v2;
  let v4 = v3;
  let t4 = (v4 * 96);
  var v5 = vec4<f32>(0.0f);
  for (var v6: i32 = t0; v6 < 384; v6 += 256) {
    v5 += k0_b0[(t4 + (v6 >> 2u))];
  }
  let t5 = v5;
  k0_b4[v1] = ((t5.x + t5.y) + (t5.z + t5.w));
  workgroupBarrier();
  if (t1) {
    k0_b4[v1] = (((k0_b4[v1] + k0_b4[(16 + v1)]) + k0_b4[(32 + v1)]) + k0_b4[(48 + v1)]);
  }
  workgroupBarrier();
  if (t2) {
    k0_b4[v1] = (((k0_b4[v1] + k0_b4[(4 + v1)]) + k0_b4[(8 + v1)]) + k0_b4[(12 + v1)]);
  }
  workgroupBarrier();
  if (t3) {
    k0_b4[v1] = (((k0_b4[v1] + k0_b4[(1 + v1)]) + k0_b4[(2 + v1)]) + k0_b4[(3 + v1)]);
  }
  workgroupBarrier();
  let v7 = k0_b4[0];
  var v8 = vec4<f32>(0.0f);
  for (var v9: i32 = t0; v9 < 384; v9 += 256) {
    let t6 = (k0_b0[(t4 + (v9 >> 2u))] - (v7 * 0.0026041667f));
    v8 += (t6 * t6);
  }
  let t7 = v8;
  k0_b5[v1] = ((t7.x + t7.y) + (t7.z + t7.w));
  workgroupBarrier();
  if (t1) {
    k0_b5[v1] = (((k0_b5[v1] + k0_b5[(16 + v1)]) + k0_b5[(32 + v1)]) + k0_b5[(48 + v1)]);
  }
  workgroupBarrier();
  if (t2) {
    k0_b5[v1] = (((k0_b5[v1] + k0_b5[(4 + v1)]) + k0_b5[(8 + v1)]) + k0_b5[(12 + v1)]);
  }
  workgroupBarrier();
  if (t3) {
    k0_b5[v1] = (((k0_b5[v1] + k0_b5[(1 + v1)]) + k0_b5[(2 + v1)]) + k0_b5[(3 + v1)]);
  }
  workgroupBarrier();
  let v10 = k0_b5[0];
  for (var v11: i32 = t0; v11 < 384; v11 += 256) {
    let t8 = (v11 >> 2u);
    let t9 = (t4 + t8);
    k0_b3[t9] = ((((k0_b0[t9] - (v7 * 0.0026041667f)) * inverseSqrt(((v10 * 0.0026041667f) + 1e-05f))) * k0_b1[t8]) + k0_b2[t8]);
  }
}
