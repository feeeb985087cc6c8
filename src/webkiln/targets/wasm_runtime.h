/* The WebAssembly ABI of docs/plan.md in C: what every printed module includes.
 *
 * A module defines its programs and includes this file once:
 *
 *     #include "wasm_runtime.h"
 *     int webkiln_steps(int program) { return 12; }
 *     int webkiln_step(int program, int step, int thread, int threads) { ... return 1; }
 *     unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) { ... return 0; }
 *
 * `webkiln_step` does thread `thread`'s share of a step. The driver below puts a barrier after
 * every step that returns 1, so that the next may read all that it and earlier ones wrote. Where it
 * returns 0, on every thread, the next may begin before others have done their shares of it; such a
 * step claims nothing. A step that needs a barrier inside calls webkiln_barrier(threads) on every
 * thread. To share work of uneven cost, or among uneven cores, a step has so many pieces for each
 * thread, and takes one at a time with webkiln_claim():
 *
 *     for (int piece; (piece = webkiln_claim(pieces, thread, threads)) >= 0;)
 *         ...                                   // of pieces * threads; restarts at each barrier
 *
 * `webkiln_weights` names stretches of weights that a step's threads share in this order and read
 * once: the address of the `index`-th and its bytes, 0 beyond the last. A thread that waits reads its
 * share of the next ones ahead.
 *
 * Compiled by clang from the ziglang wheel (0.17.1), no libc:
 *
 *     python -m ziglang cc -target wasm32-freestanding -O3 -nostdlib
 *       -mcpu=generic+simd128+bulk_memory                    every variant
 *       -mcpu=...+relaxed_simd                               relaxed-simd variants
 *       -mcpu=...+atomics -DWEBKILN_THREADS -Wl,--shared-memory   threads variants
 *       -Wl,--no-entry -Wl,--import-memory
 *       -Wl,--initial-memory=BYTES -Wl,--max-memory=BYTES    plan.wasm.memory.bytes, both
 *       -Wl,--global-base=1536 -Wl,-z,stack-size=1536        static data from 1536
 *       -Wl,--export=__stack_pointer -Wl,--strip-all
 *       module.c -o module.wasm
 *
 * -z stack-size is needed because zig passes --stack-first, which puts static data after the stack:
 * without it the linker refuses the global base. Each thread sets its own __stack_pointer instead.
 * With --shared-memory the linker makes data segments passive, and the first instance alone copies
 * them in. Static data must end below plan.wasm.memory.stacks.offset.
 */
#ifndef WEBKILN_WASM_RUNTIME_H
#define WEBKILN_WASM_RUNTIME_H

#define WEBKILN_EXPORT(name) __attribute__((export_name(#name), used))

/* Fixed addresses of the ABI. Words that threads contend for have a cache line each. */
enum {
    WEBKILN_DIMS = 64,       /* int32 a dimension */
    WEBKILN_CALL = 512,      /* runs so far << 8 | threads that take part; helpers sleep on it */
    WEBKILN_PROGRAM = 516,   /* the program to run, or -1: stop */
    WEBKILN_ARRIVED = 576,   /* threads that reached the barrier */
    WEBKILN_PHASE = 640,     /* counts barriers; threads sleep on it */
    WEBKILN_TRAPPED = 768,   /* a helper trapped and will not arrive; see webkiln_barrier */
    WEBKILN_SLEEPERS = 832,  /* threads that may be asleep; nobody is woken while there are none */
    WEBKILN_WASTED = 896,    /* looks at a phase that came too late; see webkiln_await_phase */
    WEBKILN_CLAIMS = 1024    /* what is taken of each thread's pieces; see webkiln_take */
};

#define WEBKILN_LINE 64

/* Looks this often before sleeping; 4096 looks are about 10 microseconds. Between runs nobody knows
 * how long it will be. */
#define WEBKILN_SPIN_BETWEEN_RUNS 4096

/* Between steps the others are seldom further behind than a step takes, so a thread looks on: what one
 * thread does alone, or a task more than others, takes less than 320 microseconds. If they are, the system
 * may have two threads on one core, above all in the first run after a pause. As long as both can run it
 * moves one away at its next tick, every 4 ms on Linux, while threads that sleep in turn stay there for the
 * whole run. But if another program has the other core, nothing is moved, and each look takes the time of
 * the thread that is waited for: 6 tokens a second instead of 90. So about 5 ms are for the longer waits of
 * a run together, of all threads; then they sleep after 20 microseconds. */
#define WEBKILN_SPIN_IN_RUN (1 << 17)
#define WEBKILN_SPIN_IMPATIENT (1 << 13)
#define WEBKILN_PATIENCE (1 << 21)

/* A helper that was woken before there is anything to do will have it in a moment: the page wakes
 * helpers while its message is on the way to thread 0. About 1.3 milliseconds. */
#define WEBKILN_SPIN_WOKEN (1 << 19)

int webkiln_steps(int program);
int webkiln_step(int program, int step, int thread, int threads);
unsigned webkiln_weights(int program, int step, int index, unsigned *bytes);

static inline int *webkiln_word(int address) { return (int *)(unsigned long)address; }

static int webkiln_phase(void) {
    return __atomic_load_n(webkiln_word(WEBKILN_PHASE), __ATOMIC_ACQUIRE);
}

/* A piece of `owner`'s, the next from the front or from the back; -1 if all are taken. The claim has
 * two counts, and the phase that they are of: it is void after the next barrier, where nobody need
 * put it back. */
static int webkiln_take(int owner, int pieces, int from_back) {
    typedef unsigned long long Claim;
    Claim *place = (Claim *)(unsigned long)(WEBKILN_CLAIMS + owner * WEBKILN_LINE);
    unsigned phase = (unsigned)webkiln_phase();
    for (Claim old = __atomic_load_n(place, __ATOMIC_RELAXED);;) {
        unsigned taken = old >> 32 == phase ? (unsigned)old : 0;
        int front = taken & 0xffff, back = taken >> 16;
        if (front + back >= pieces) return -1;
        Claim claim = (Claim)phase << 32 | (taken + (from_back ? 0x10000u : 1u));
        if (__atomic_compare_exchange_n(place, &old, claim, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return from_back ? pieces - 1 - back : front;
    }
}

/* The next of a step's `pieces` for each thread, -1 if all are taken: this thread's own from the
 * first on, then the last that another one has left. Where threads are equally fast, each reads its
 * share of memory in one stretch. */
static int webkiln_claim(int pieces, int thread, int threads) {
    for (int i = 0, owner = thread; i < threads; i++, owner = owner + 1 < threads ? owner + 1 : 0) {
        int piece = webkiln_take(owner, pieces, i > 0);
        if (piece >= 0) return owner * pieces + piece;
    }
    return -1;
}

/* How much of its share of a step's weights a thread has read ahead. */
typedef struct { int step, bytes; } webkiln_ahead;

/* The value of dimension `index` in this run. */
static inline int webkiln_dim(int index) { return webkiln_word(WEBKILN_DIMS)[index]; }

#ifdef WEBKILN_THREADS

/* Looks at the word at `address` until it is no longer `old`, `spin` times at most; its last value. */
static int webkiln_look(int address, int old, int spin) {
    int now = old;
    for (int i = 0; i < spin && now == old; i++)
        now = __atomic_load_n(webkiln_word(address), __ATOMIC_ACQUIRE);
    return now;
}

/* Waits until the word at `address` is no longer `old`, `spin` looks long without sleeping; returns
 * its new value. */
static int webkiln_await(int address, int old, int spin) {
    int *word = webkiln_word(address);
    for (int now;; spin = WEBKILN_SPIN_WOKEN) {
        if ((now = webkiln_look(address, old, spin)) != old) return now;
        __atomic_fetch_add(webkiln_word(WEBKILN_SLEEPERS), 1, __ATOMIC_SEQ_CST);
        __builtin_wasm_memory_atomic_wait32(word, old, -1);
        __atomic_fetch_sub(webkiln_word(WEBKILN_SLEEPERS), 1, __ATOMIC_SEQ_CST);
    }
}

/* Sets the word and wakes who awaits it. Waking takes the engine a microsecond even where nobody
 * sleeps; who is about to sleep counts itself first, and then finds the word changed. */
static void webkiln_signal(int address, int value) {
    int *word = webkiln_word(address);
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(webkiln_word(WEBKILN_SLEEPERS), __ATOMIC_SEQ_CST))
        __builtin_wasm_memory_atomic_notify(word, ~0u);
}

/* Calls helpers 1 … threads-1. Count and team share a word, so that a helper outside the team,
 * which nobody waits for, never mixes one call's team with another's program. */
static void webkiln_call(int program, int threads) {
    int call = *webkiln_word(WEBKILN_CALL);
    *webkiln_word(WEBKILN_PROGRAM) = program;
    webkiln_signal(WEBKILN_CALL, (int)(((unsigned)call & ~255u) + 256u) | threads);
}

/* Traps too when a helper did. The helper's worker sets the word, then moves the phase on: a thread
 * that does not see the one yet is woken by the other. */
static void webkiln_check_team(void) {
    if (__atomic_load_n(webkiln_word(WEBKILN_TRAPPED), __ATOMIC_ACQUIRE)) __builtin_trap();
}

/* Whether threads were waited for in vain so long in this run that they will not be any more. */
static int webkiln_impatient(void) {
    return __atomic_load_n(webkiln_word(WEBKILN_WASTED), __ATOMIC_RELAXED) >= WEBKILN_PATIENCE;
}

/* Waits until the phase is no longer `phase`, without sleeping while there is patience. */
static void webkiln_await_phase(int phase) {
    int spin = webkiln_impatient() ? WEBKILN_SPIN_IMPATIENT : WEBKILN_SPIN_IN_RUN;
    while (webkiln_look(WEBKILN_PHASE, phase, spin) == phase) {
        __atomic_fetch_add(webkiln_word(WEBKILN_WASTED), spin, __ATOMIC_RELAXED);
        if (!webkiln_impatient()) continue;
        webkiln_await(WEBKILN_PHASE, phase, 0);
        return;
    }
}

/* Counts this thread in and returns whether it was the last of `threads`, which lets all pass. */
static int webkiln_arrive(int phase, int threads) {
    int *arrived = webkiln_word(WEBKILN_ARRIVED);
    webkiln_check_team();
    if (__atomic_fetch_add(arrived, 1, __ATOMIC_ACQ_REL) < threads - 1) return 0;
    __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
    webkiln_signal(WEBKILN_PHASE, phase + 1);
    return 1;
}

/* Nobody passes before all `threads` are here; what they wrote is then visible to all. */
static void webkiln_barrier(int threads) {
    int phase = webkiln_phase();
    if (webkiln_arrive(phase, threads)) return;
    webkiln_await_phase(phase);
    webkiln_check_team();
}

/* A thread that waits for the others reads into its cache what it will need next. So much at most, as
 * it may wait for long; in looks of so many cache lines, between which the others may arrive. */
#define WEBKILN_MOST_AHEAD (1 << 18)
#define WEBKILN_LINES_A_LOOK 16

static void webkiln_read_ahead(webkiln_ahead *ahead, int program, int step, int thread, int threads,
                               int phase) {
    if (webkiln_impatient()) return; /* somebody else needs the core */
    unsigned address, bytes;
    int sum = 0, steps = webkiln_steps(program);
    while (step < steps && !webkiln_weights(program, step, 0, &bytes)) step++;
    if (step == steps) return;
    if (ahead->step != step) *ahead = (webkiln_ahead){step, 0};
    int from = ahead->bytes;
    for (int i = 0; (address = webkiln_weights(program, step, i, &bytes)); i++) {
        int share = (int)(bytes / (unsigned)threads) & -(WEBKILN_LINES_A_LOOK * WEBKILN_LINE);
        volatile int *line = webkiln_word((int)(address + (unsigned)(share * thread)));
        for (; from < share; from += WEBKILN_LINES_A_LOOK * WEBKILN_LINE) {
            if (ahead->bytes >= WEBKILN_MOST_AHEAD || webkiln_phase() != phase) goto done;
            for (int k = 0; k < WEBKILN_LINES_A_LOOK; k++)
                sum += line[(from + k * WEBKILN_LINE) / (int)sizeof(int)];
            ahead->bytes += WEBKILN_LINES_A_LOOK * WEBKILN_LINE;
        }
        from -= share;
    }
done: /* where nobody looks; engines leave out what has no use */
    *webkiln_word(WEBKILN_CLAIMS + thread * WEBKILN_LINE + 32) = sum;
}

/* The barrier after a step. */
static void webkiln_end_step(webkiln_ahead *ahead, int program, int step, int thread, int threads) {
    int phase = webkiln_phase();
    if (webkiln_arrive(phase, threads)) return;
    webkiln_read_ahead(ahead, program, step + 1, thread, threads, phase);
    webkiln_await_phase(phase);
    webkiln_check_team();
}

#else

static void webkiln_barrier(int threads) {
    (void)threads;
    ++*webkiln_word(WEBKILN_PHASE);
}

static void webkiln_end_step(webkiln_ahead *ahead, int program, int step, int thread, int threads) {
    (void)ahead, (void)program, (void)step, (void)thread;
    webkiln_barrier(threads);
}

#endif

/* Thread `thread`'s part of a run. */
static void webkiln_work(int program, int thread, int threads) {
    webkiln_ahead ahead = {-1, 0};
    for (int step = 0, steps = webkiln_steps(program); step < steps; step++) {
        if (webkiln_step(program, step, thread, threads))
            webkiln_end_step(&ahead, program, step, thread, threads);
    }
}

/* Runs the program as thread 0 of `threads`; returns when all of them are done. The last step's
 * barrier sees to that. */
WEBKILN_EXPORT(run) void webkiln_run(int program, int threads) {
    ++*webkiln_word(WEBKILN_PHASE); /* a step that trapped left claims behind */
#ifdef WEBKILN_THREADS
    if (threads > 1) {
        *webkiln_word(WEBKILN_WASTED) = 0;
        webkiln_call(program, threads);
    }
#endif
    webkiln_work(program, 0, threads);
}

/* One step on the calling thread alone, for profiling. */
WEBKILN_EXPORT(step) void webkiln_profile_step(int program, int step) {
    webkiln_step(program, step, 0, 1);
    webkiln_barrier(1);
}

#ifdef WEBKILN_THREADS

/* A helper's life: sleep, take part in a run, sleep; return after stop(). It can't miss a run that
 * counts on it, because that run doesn't end without it. */
WEBKILN_EXPORT(serve) void webkiln_serve(int thread) {
    for (int call = 0;;) {
        call = webkiln_await(WEBKILN_CALL, call, WEBKILN_SPIN_BETWEEN_RUNS);
        int threads = call & 255;
        if (thread >= threads) continue;
        int program = *webkiln_word(WEBKILN_PROGRAM);
        if (program < 0) return;
        webkiln_work(program, thread, threads);
    }
}

WEBKILN_EXPORT(stop) void webkiln_stop(void) { webkiln_call(-1, 255); }

#endif
#endif
