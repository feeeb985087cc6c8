@group(0) @binding(0) var<storage, read> k0_b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k0_b1: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k0_b2: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> k0_b3: array<f32>;
var<workgroup> k0_b4: array<vec4<f32>, 128>;
@compute @workgroup_size(8, 8, 1)
fn k0(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let v0 = i32(group.x);
  let v1 = i32(local.y);
  let v2 = i32(local.x);
  let v3 = ((v1 * 8) + v2);
  let t0 = (v3 * 2);
  let t1 = ((v0 * 64) + v3);
  let t2 = (v3 & 7);
  let v4 = min(((v0 * 8) + v1), 1);
  var v5 = vec4<f32>(0.0f);
  var v6 = vec4<f32>(0.0f);
  for (var v7: i32 = v2; v7 < 2; v7 += 8) {
    let t3 = (v7 * 8);
    let t4 = ((v7 * 2) + (v4 * 4));
    var v8 = 0.0f;
    var v9 = vec4<f32>(0.0f);
    var v10 = vec4<f32>(0.0f);
    for (var v11: i32 = 0; v11 < 4; v11++) {
      let t5 = (v11 * 2);
      let t6 = (t3 + t5);
      let t7 = ((t3 + (v4 * 16)) + t5);
      let v12 = k0_b0[t6];
      let v13 = k0_b0[(t6 + 1)];
      v8 = ((((((((v8 + v12.x) + v12.y) + v12.z) + v12.w) + v13.x) + v13.y) + v13.z) + v13.w);
      let v14 = k0_b1[t7];
      v9 = ((((((((v9 + (vec4<f32>(((v14 >> vec4<u32>(0u)) & vec4<u32>(15u))) * v12.x)) + (vec4<f32>(((v14 >> vec4<u32>(8u)) & vec4<u32>(15u))) * v12.y)) + (vec4<f32>(((v14 >> vec4<u32>(16u)) & vec4<u32>(15u))) * v12.z)) + (vec4<f32>(((v14 >> vec4<u32>(24u)) & vec4<u32>(15u))) * v12.w)) + (vec4<f32>(((v14 >> vec4<u32>(4u)) & vec4<u32>(15u))) * v13.x)) + (vec4<f32>(((v14 >> vec4<u32>(12u)) & vec4<u32>(15u))) * v13.y)) + (vec4<f32>(((v14 >> vec4<u32>(20u)) & vec4<u32>(15u))) * v13.z)) + (vec4<f32>(((v14 >> vec4<u32>(28u)) & vec4<u32>(15u))) * v13.w));
      let v15 = k0_b1[(t7 + 1)];
      v10 = ((((((((v10 + (vec4<f32>(((v15 >> vec4<u32>(0u)) & vec4<u32>(15u))) * v12.x)) + (vec4<f32>(((v15 >> vec4<u32>(8u)) & vec4<u32>(15u))) * v12.y)) + (vec4<f32>(((v15 >> vec4<u32>(16u)) & vec4<u32>(15u))) * v12.z)) + (vec4<f32>(((v15 >> vec4<u32>(24u)) & vec4<u32>(15u))) * v12.w)) + (vec4<f32>(((v15 >> vec4<u32>(4u)) & vec4<u32>(15u))) * v13.x)) + (vec4<f32>(((v15 >> vec4<u32>(12u)) & vec4<u32>(15u))) * v13.y)) + (vec4<f32>(((v15 >> vec4<u32>(20u)) & vec4<u32>(15u))) * v13.z)) + (vec4<f32>(((v15 >> vec4<u32>(28u)) & vec4<u32>(15u))) * v13.w));
    }
    let v16 = k0_b2[t4];
    let t8 = v16;
    let t9 = (t8 >> vec4<u32>(16u));
    v5 += ((v9 * vec4<f32>(unpack2x16float(t8.x).x, unpack2x16float(t8.y).x, unpack2x16float(t8.z).x, unpack2x16float(t8.w).x)) + (vec4<f32>(unpack2x16float(t9.x).x, unpack2x16float(t9.y).x, unpack2x16float(t9.z).x, unpack2x16float(t9.w).x) * v8));
    let v17 = k0_b2[(t4 + 1)];
    let t10 = v17;
    let t11 = (t10 >> vec4<u32>(16u));
    v6 += ((v10 * vec4<f32>(unpack2x16float(t10.x).x, unpack2x16float(t10.y).x, unpack2x16float(t10.z).x, unpack2x16float(t10.w).x)) + (vec4<f32>(unpack2x16float(t11.x).x, unpack2x16float(t11.y).x, unpack2x16float(t11.z).x, unpack2x16float(t11.w).x) * v8));
  }
  k0_b4[t0] = v5;
  k0_b4[(t0 + 1)] = v6;
  workgroupBarrier();
  if (((v3 < 64) && (t1 < 16))) {
    let v18 = (v3 >> 3u);
    var v19 = 0.0f;
    for (var v20: i32 = 0; v20 < 8; v20++) {
      v19 += k0_b4[(((v18 * 16) + (v20 * 2)) + (t2 >> 2u))][(t2 & 3)];
    }
    let v21 = t1;
    k0_b3[v21] = (v19 * 3.8146973e-06f);
  }
}
