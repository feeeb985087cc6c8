@group(0) @binding(0) var<storage, read> k0_b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k0_b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k0_b2: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> k0_params: array<vec4<i32>, 1>;
@compute @workgroup_size(16, 4, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = k0_params[0].x;
  let v1 = i32(group.y);
  let v2 = i32(local.y);
  let v3 = i32(group.x);
  let v4 = i32(local.x);
  let v5 = ((v1 * 4) + v2);
  let t0 = (v5 * 4);
  let t1 = (t0 + 1);
  let t2 = (t0 + 2);
  let t3 = (t0 + 3);
  let v6 = ((v3 * 16) + v4);
  let t4 = ((v5 * 128) + (v6 * 2));
  if ((v5 < ((v0 + 3) >> 2u))) {
    var v7 = vec4<f32>(0.0f);
    var v8 = vec4<f32>(0.0f);
    var v9 = vec4<f32>(0.0f);
    var v10 = vec4<f32>(0.0f);
    var v11 = vec4<f32>(0.0f);
    var v12 = vec4<f32>(0.0f);
    var v13 = vec4<f32>(0.0f);
    var v14 = vec4<f32>(0.0f);
    let v15 = min(t0, (v0 - 1));
    let v16 = min(t1, (v0 - 1));
    let v17 = min(t2, (v0 - 1));
    let v18 = min(t3, (v0 - 1));
    for (var v19: i32 = 0; v19 < 24; v19++) {
      let t5 = ((v19 * 8) + (v6 * 192));
      let v20 = k0_b0[(v19 + (v15 * 24))];
      let v21 = k0_b0[(v19 + (v16 * 24))];
      let v22 = k0_b0[(v19 + (v17 * 24))];
      let v23 = k0_b0[(v19 + (v18 * 24))];
      let v24 = k0_b1[t5];
      let v25 = k0_b1[(t5 + 1)];
      v7 += (v20.x * v24);
      v8 += (v20.x * v25);
      v9 += (v21.x * v24);
      v10 += (v21.x * v25);
      v11 += (v22.x * v24);
      v12 += (v22.x * v25);
      v13 += (v23.x * v24);
      v14 += (v23.x * v25);
      let v26 = k0_b1[(t5 + 2)];
      let v27 = k0_b1[(t5 + 3)];
      v7 += (v20.y * v26);
      v8 += (v20.y * v27);
      v9 += (v21.y * v26);
      v10 += (v21.y * v27);
      v11 += (v22.y * v26);
      v12 += (v22.y * v27);
      v13 += (v23.y * v26);
      v14 += (v23.y * v27);
      let v28 = k0_b1[(t5 + 4)];
      let v29 = k0_b1[(t5 + 5)];
      v7 += (v20.z * v28);
      v8 += (v20.z * v29);
      v9 += (v21.z * v28);
      v10 += (v21.z * v29);
      v11 += (v22.z * v28);
      v12 += (v22.z * v29);
      v13 += (v23.z * v28);
      v14 += (v23.z * v29);
      let v30 = k0_b1[(t5 + 6)];
      let v31 = k0_b1[(t5 + 7)];
      v7 += (v20.w * v30);
      v8 += (v20.w * v31);
      v9 += (v21.w * v30);
      v10 += (v21.w * v31);
      v11 += (v22.w * v30);
      v12 += (v22.w * v31);
      v13 += (v23.w * v30);
      v14 += (v23.w * v31);
    }
    k0_b2[t4] = v7;
    k0_b2[(t4 + 1)] = v8;
    if ((t1 < v0)) {
      k0_b2[(t4 + 32)] = v9;
      k0_b2[(t4 + 33)] = v10;
    }
    if ((t2 < v0)) {
      k0_b2[(t4 + 64)] = v11;
      k0_b2[(t4 + 65)] = v12;
    }
    if ((t3 < v0)) {
      k0_b2[(t4 + 96)] = v13;
      k0_b2[(t4 + 97)] = v14;
    }
  }
}
