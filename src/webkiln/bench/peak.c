/* What one thread of this machine can do at most: program 0's step 0 is arithmetic, step 1 is memory.
 *
 * Step 0: 12 independent chains of multiply-add on 4 floats each, as many as the 16 registers of x86-64 hold
 * beside two operands; enough to hide the latency of a multiply and an add (4 cycles each) on two ports.
 * Step 1: one pass over BYTES of memory, far more than the last-level cache.
 */
#include "wasm_runtime.h"

typedef float vector __attribute__((vector_size(16)));
typedef unsigned word __attribute__((vector_size(16)));

enum { RESULT = 131072, DATA = 1048576 };

int webkiln_steps(int program) { return 2; }
unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) { return 0; }

static void arithmetic(void) {
    vector a[12], m = {0.5f, 0.25f, 0.125f, 0.75f}, k = {1, 2, 3, 4}, sum = {0};
    for (int i = 0; i < 12; i++) a[i] = (vector){i, i, i, i};
    for (int n = 0; n < ITERATIONS; n++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < 12; i++) a[i] = a[i] * m + k;
    }
    for (int i = 0; i < 12; i++) sum += a[i];
    *(volatile vector *)RESULT = sum;
}

static void memory(void) {
    const word *data = (const word *)DATA;
    word a = {0}, b = {0}, c = {0}, d = {0};
    for (int i = 0; i < BYTES / 16; i += 4) {
        a ^= data[i];
        b ^= data[i + 1];
        c ^= data[i + 2];
        d ^= data[i + 3];
    }
    *(volatile word *)RESULT = a ^ b ^ c ^ d;
}

int webkiln_step(int program, int step, int thread, int threads) {
    if (step == 0) arithmetic();
    else memory();
    return 1;
}
