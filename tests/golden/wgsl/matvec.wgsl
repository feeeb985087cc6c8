@group(0) @binding(0) var<storage, read> k0_b0: array<f32>;
@group(0) @binding(1) var<storage, read> k0_b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k0_b2: array<vec4<f32>>;
var<workgroup> k0_b3: array<vec4<f32>, 128>;
@compute @workgroup_size(16, 4, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = i32(group.x);
  let v1 = i32(local.y);
  let v2 = i32(local.x);
  let t0 = (v1 * 32);
  let t1 = (t0 + v2);
  let t2 = (t1 + 16);
  let v3 = ((v0 * 4) + v1);
  let t3 = (v3 < 16);
  let t4 = (v3 * 2);
  var v4 = vec4<f32>(0.0f);
  var v5 = vec4<f32>(0.0f);
  if (t3) {
    for (var v6: i32 = v2; v6 < 96; v6 += 16) {
      let t5 = ((v6 * 2) + (v3 * 192));
      let v7 = k0_b0[v6];
      v4 += (v7 * k0_b1[t5]);
      v5 += (v7 * k0_b1[(t5 + 1)]);
    }
  }
  k0_b3[t1] = v4;
  k0_b3[t2] = v5;
  workgroupBarrier();
  if ((v2 < 4)) {
    k0_b3[t1] = (((k0_b3[t1] + k0_b3[(t1 + 4)]) + k0_b3[(t1 + 8)]) + k0_b3[(t1 + 12)]);
    k0_b3[t2] = (((k0_b3[t2] + k0_b3[(t1 + 20)]) + k0_b3[(t1 + 24)]) + k0_b3[(t1 + 28)]);
  }
  workgroupBarrier();
  if ((v2 < 1)) {
    k0_b3[t1] = (((k0_b3[t1] + k0_b3[(t1 + 1)]) + k0_b3[(t1 + 2)]) + k0_b3[(t1 + 3)]);
    k0_b3[t2] = (((k0_b3[t2] + k0_b3[(t1 + 17)]) + k0_b3[(t1 + 18)]) + k0_b3[(t1 + 19)]);
  }
  workgroupBarrier();
  if ((t3 && (v2 == 0))) {
    let v8 = k0_b3[t0];
    k0_b2[t4] = v8;
  }
  if ((t3 && (v2 == 1))) {
    let v9 = k0_b3[(t0 + 16)];
    k0_b2[(t4 + 1)] = v9;
  }
}
