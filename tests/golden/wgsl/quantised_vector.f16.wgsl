enable f16;

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
      let v14 = max(max(max(max(max(max(max(abs(v12.x), abs(v12.y)), abs(v12.z)), abs(v12.w)), abs(v13.x)), abs(v13.y)), abs(v13.z)), abs(v13.w));
      let v15 = (bitcast<u32>(v14) & 2139095040u);
      let v16 = bitcast<f32>((2130706432u - v15));
      let v17 = bitcast<f32>(v15);
      let v18 = vec2<f16>((vec2<f32>(v12.x, v12.z) * v16));
      let v19 = vec2<f16>((vec2<f32>(v12.y, v12.w) * v16));
      let v20 = vec2<f16>((vec2<f32>(v13.x, v13.z) * v16));
      let v21 = vec2<f16>((vec2<f32>(v13.y, v13.w) * v16));
      let v22 = k0_b1[t7];
      let t8 = (((v22 >> vec4<u32>(0u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t9 = (((v22 >> vec4<u32>(8u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t10 = (((v22 >> vec4<u32>(4u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t11 = (((v22 >> vec4<u32>(12u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t12 = (((((vec2<f16>(unpack2x16float(t8.x)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t9.x)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t10.x)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t11.x)) - 1032.0h) * v21));
      let t13 = (((((vec2<f16>(unpack2x16float(t8.y)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t9.y)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t10.y)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t11.y)) - 1032.0h) * v21));
      let t14 = (((((vec2<f16>(unpack2x16float(t8.z)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t9.z)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t10.z)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t11.z)) - 1032.0h) * v21));
      let t15 = (((((vec2<f16>(unpack2x16float(t8.w)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t9.w)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t10.w)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t11.w)) - 1032.0h) * v21));
      v9 += (vec4<f32>(vec4<f16>((t12.x + t12.y), (t13.x + t13.y), (t14.x + t14.y), (t15.x + t15.y))) * v17);
      let v23 = k0_b1[(t7 + 1)];
      let t16 = (((v23 >> vec4<u32>(0u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t17 = (((v23 >> vec4<u32>(8u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t18 = (((v23 >> vec4<u32>(4u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t19 = (((v23 >> vec4<u32>(12u)) & vec4<u32>(983055u)) | vec4<u32>(1677747200u));
      let t20 = (((((vec2<f16>(unpack2x16float(t16.x)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t17.x)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t18.x)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t19.x)) - 1032.0h) * v21));
      let t21 = (((((vec2<f16>(unpack2x16float(t16.y)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t17.y)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t18.y)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t19.y)) - 1032.0h) * v21));
      let t22 = (((((vec2<f16>(unpack2x16float(t16.z)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t17.z)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t18.z)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t19.z)) - 1032.0h) * v21));
      let t23 = (((((vec2<f16>(unpack2x16float(t16.w)) - 1032.0h) * v18) + ((vec2<f16>(unpack2x16float(t17.w)) - 1032.0h) * v19)) + ((vec2<f16>(unpack2x16float(t18.w)) - 1032.0h) * v20)) + ((vec2<f16>(unpack2x16float(t19.w)) - 1032.0h) * v21));
      v10 += (vec4<f32>(vec4<f16>((t20.x + t20.y), (t21.x + t21.y), (t22.x + t22.y), (t23.x + t23.y))) * v17);
    }
    let v24 = k0_b2[t4];
    let t24 = v24;
    let t25 = vec4<f32>(unpack2x16float(t24.x).x, unpack2x16float(t24.y).x, unpack2x16float(t24.z).x, unpack2x16float(t24.w).x);
    let t26 = (t24 >> vec4<u32>(16u));
    v5 += ((v9 * t25) + ((vec4<f32>(unpack2x16float(t26.x).x, unpack2x16float(t26.y).x, unpack2x16float(t26.z).x, unpack2x16float(t26.w).x) + (t25 * 8.0f)) * v8));
    let v25 = k0_b2[(t4 + 1)];
    let t27 = v25;
    let t28 = vec4<f32>(unpack2x16float(t27.x).x, unpack2x16float(t27.y).x, unpack2x16float(t27.z).x, unpack2x16float(t27.w).x);
    let t29 = (t27 >> vec4<u32>(16u));
    v6 += ((v10 * t28) + ((vec4<f32>(unpack2x16float(t29.x).x, unpack2x16float(t29.y).x, unpack2x16float(t29.z).x, unpack2x16float(t29.w).x) + (t28 * 8.0f)) * v8));
  }
  k0_b4[t0] = v5;
  k0_b4[(t0 + 1)] = v6;
  workgroupBarrier();
  if (((v3 < 64) && (t1 < 16))) {
    let v26 = (v3 >> 3u);
    var v27 = 0.0f;
    for (var v28: i32 = 0; v28 < 8; v28++) {
      v27 += k0_b4[(((v26 * 16) + (v28 * 2)) + (t2 >> 2u))][(t2 & 3)];
    }
    let v29 = t1;
    k0_b3[v29] = (v27 * 3.8146973e-06f);
  }
}
