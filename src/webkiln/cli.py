"""The `webkiln` command: thin over the library, which does the work and raises the errors.

Exit codes: 0 done; 1 a check failed, or a fault; 2 wrong usage or bad input; 3 a model that cannot
be compiled; 130 stopped by Ctrl-C. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webkiln import __version__, terminal
from webkiln import cli_options as opt
from webkiln.errors import InputError, WebkilnError
from webkiln.output import terminate_as_interrupt

if TYPE_CHECKING:
    from webkiln.generation import Answer

__all__ = ["app", "main"]

app = typer.Typer(
    name="webkiln",
    help="Compile a machine-learning model once into a static folder that runs in every browser.",
    epilog="WEBKILN_DEBUG=1 prints stages and tracebacks, 2 kernels, 3 IR, 4 generated source.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"webkiln {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Compile a machine-learning model once into a static folder that runs in every browser."""


@app.command()
def build(
    model: opt.ModelName,
    output: opt.BundleFolder = Path("dist"),
    task: opt.Task = None,
    quantize: opt.Quantize = "f32",
    activations: opt.Activations = "int16",
    bounds: opt.Bounds = None,
    targets: opt.Targets = "webgpu,wasm",
    constants: opt.Constants = None,
    title: opt.Title = None,
    revision: opt.Revision = None,
    as_json: opt.Json = False,
) -> None:
    """Compile a model into a static folder.

    The folder is a finished app: any host of static files can serve it. It appears when it is
    complete; an older bundle there is replaced, anything else is left alone.
    """
    maxima, wanted = _bounds(bounds or []), _names(targets, "--targets")
    fixed = _constants(constants or [])
    from webkiln import compile as compiler

    started = time.perf_counter()
    with terminal.Bars() as progress:
        compiler.build(
            model,
            task=task,
            quantize=quantize,
            activations=activations,
            max=maxima,
            targets=wanted,
            constants=fixed or None,
            title=title,
            revision=revision,
            output=output,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    summary = _build_summary(output, seconds)
    if as_json:
        terminal.print_json(summary)
    else:
        terminal.say(
            f"{output}: {summary['task']}, {summary['steps']} steps, "
            f"{terminal.size(summary['weights'])} of weights, in {seconds:.1f} s"
        )
        terminal.note(f"webkiln serve {output} shows it in a browser")


def _build_summary(output: Path, seconds: float) -> dict[str, Any]:
    from webkiln.inspect import bundle_report

    report = bundle_report(output)
    return {
        "output": str(output),
        "name": report.name,
        "task": report.task,
        "steps": sum(len(program.steps) for program in report.programs),
        "kernels": report.kernels,
        "weights": report.weights,
        "weights_first": report.weights_first,
        "memory": report.memory,
        "before_weights_gzip": sum(file["gzip"] for file in report.files.values()),
        "seconds": round(seconds, 3),
    }


@app.command()
def serve(
    folder: opt.Folder,
    port: opt.Port = 3000,
    host: opt.Host = "localhost",
    isolation: Annotated[
        bool,
        typer.Option(
            "--isolation/--no-isolation",
            help="Send the headers that let a page use threads (COOP and COEP).",
        ),
    ] = True,
) -> None:
    """Serve a bundle until Ctrl-C."""
    from webkiln import server

    server.serve(folder, host=host, port=port, isolation=isolation, ready=_announce(folder))


@app.command()
def run(
    folder: opt.Folder,
    inputs: opt.Inputs = None,
    prompt: opt.Prompt = None,
    system: opt.System = None,
    raw: opt.Raw = False,
    max_tokens: opt.MaxTokens = None,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    min_p: opt.MinP = None,
    seed: opt.Seed = None,
    output: opt.OutputFile = None,
    as_json: opt.Json = False,
) -> None:
    """Run a bundle here, without a browser.

    The same WebAssembly, through wasmtime, with the task's own pre- and post-processing.
    A language model answers --prompt, word by word.
    """
    from webkiln import runner

    if prompt is None and not inputs:
        raise InputError("there is nothing to run", hint="give --input, or --prompt")
    options = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "seed": seed,
    }  # fmt: skip
    if prompt is not None or runner.generates_text(folder, inputs or []):
        if output is not None or (prompt is not None and inputs):
            raise InputError(
                "--prompt goes with neither --input nor --output", hint="leave one of them out"
            )
        text = runner.read_prompt((inputs or [""])[0]) if prompt is None else prompt
        _say_answer(runner.generate(folder, text, system, raw, options), as_json)
        return
    asked = [name for name, value in {"system": system, **options}.items() if value is not None]
    if asked or raw:
        raise InputError(
            f"--{(asked or ['raw'])[0].replace('_', '-')} is for language models",
            hint="give --prompt with it",
        )
    result = runner.run(folder, inputs or [])
    if output is not None:
        runner.save_outputs(output, result.outputs)
    if as_json:
        terminal.print_json(result.answer)
    else:
        terminal.say(runner.show(result.answer))


def _say_answer(answer: Answer, as_json: bool) -> None:
    """The text as it comes, then on standard error what it took."""
    for piece in answer:
        if not as_json:
            terminal.write(piece)
    usage = answer.usage
    if as_json:
        document = {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "prefill_tokens_per_second": round(usage.prefill_tokens_per_second, 2),
            "decode_tokens_per_second": round(usage.decode_tokens_per_second, 2),
        }
        terminal.print_json(document)
        return
    terminal.write("\n")
    cut = " (cut: as long as it may be)" if answer.finish_reason == "length" else ""
    terminal.note(
        f"{usage.prompt_tokens} tokens read, {usage.prefill_tokens_per_second:.1f}/s; "
        f"{usage.completion_tokens} written, {usage.decode_tokens_per_second:.1f}/s{cut}"
    )


@app.command()
def check(folder: opt.Folder, as_json: opt.Json = False) -> None:
    """Compare a bundle with the reference.

    Replays the samples that ONNX Runtime computed when the bundle was built; exits with 1 when
    an output is off by more than the tolerance.
    """
    from webkiln.bundle import Bundle

    checks = Bundle.load(folder).check()
    passed = all(item.ok for item in checks)
    if as_json:
        terminal.print_json(
            {
                "ok": passed,
                "outputs": [
                    {
                        "sample": item.sample,
                        "output": item.output,
                        "max_abs_error": item.max_abs_error,
                        "max_rel_error": item.max_rel_error,
                        "ok": item.ok,
                    }
                    for item in checks
                ],
            }
        )
    else:
        rows = [
            [str(item.sample), item.output, f"{item.max_abs_error:.3g}",
             f"{item.max_rel_error:.3g}", "ok" if item.ok else "FAILED"]
            for item in checks
        ]  # fmt: skip
        columns = ["sample", "output", "max abs error>", "max rel error>", "result"]
        terminal.print_table("", columns, rows)
    if not passed:
        raise typer.Exit(1)


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|DIR", help="A bundle's folder, or any model.")
    ],
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="NAME=N", help="Costs at this size of a dimension."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the report as one page."),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Show operators, kernels, cost and memory.

    Of a bundle: what was fused into each kernel, FLOPs, bytes, memory over time, what the
    browser must offer. Of any other model: its operators and shapes, and what is unsupported.
    """
    from webkiln import inspect as inspection
    from webkiln.inspect import text
    from webkiln.output import is_bundle

    report: Any
    show: Any
    page: Any
    if is_bundle(Path(model)):
        report = inspection.bundle_report(model, _bounds(at or [], "--at"))
        show, page = text.bundle_text, inspection.bundle_page
    else:
        from webkiln import frontends

        report = inspection.model_report(frontends.load(model))
        show, page = text.model_text, inspection.model_page
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(report), encoding="utf-8")
        terminal.note(f"wrote {html}")
    if as_json:
        terminal.print_json(report.to_json())
    elif html is None:
        show(report)


@app.command()
def bench(
    folder: opt.Folder,
    browser: Annotated[
        str, typer.Option("--browser", metavar="PATH", help="chromium, or the path of one.")
    ] = "chromium",
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="LIST", help="wasm, webgpu, or both separated by a comma."
        ),
    ] = "wasm",
    threads: Annotated[
        str,
        typer.Option(
            "--threads", metavar="LIST", help="Thread counts for wasm, separated by commas."
        ),
    ] = "1,2",
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, help="Timed runs of each.")
    ] = 20,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="PEER",
            help="Compare with a peer on the same model: onnxruntime-web.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The model that the bundle was built from, for --against.",
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Time a bundle in a headless browser.

    Checks the result first. Prints medians, and of each kernel how far it is from its floor: its
    FLOPs and bytes at the peak that one thread of WebAssembly reaches on this machine.
    """
    from webkiln import bench as benchmark

    options = benchmark.Options(
        browser=browser,
        devices=_names(device, "--device"),
        threads=tuple(_number(part, "--threads") for part in _names(threads, "--threads")),
        runs=runs,
        against=_names(against, "--against") if against else (),
        model=model,
    )
    with terminal.Bars() as progress:
        report = benchmark.run(folder, options, progress=progress)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        benchmark.show(report)


@app.command()
def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where the apps are built and kept."),
    ] = None,
    apps: Annotated[
        str | None,
        typer.Option(
            "--apps", metavar="LIST", help="Only these apps, separated by commas. Default: all."
        ),
    ] = None,
    port: opt.Port = 3000,
    host: opt.Host = "localhost",
    serving: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve the gallery when it is built.")
    ] = True,
) -> None:
    """Build the gallery of ready apps, and serve it.

    Apps are built on first use, from trained models that package registries carry; the error
    names the packages that are missing.
    """
    from webkiln import demo as gallery
    from webkiln import server

    listener = server.listen(host, port) if serving else None  # a taken port fails before a build
    with terminal.Bars() as progress:
        folder = gallery.build(
            output, apps=_names(apps, "--apps") if apps else None, progress=progress
        )
    if listener is None:
        terminal.say(str(folder))
        return
    server.serve(folder, host=host, listener=listener, ready=_announce(folder))


def _announce(folder: Path) -> Any:
    def ready(url: str) -> None:
        terminal.say(f"{folder} is served on {url.removesuffix('/')}  (Ctrl-C stops)")
        sys.stdout.flush()

    return ready


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise InputError(
            f"{option} names nothing", hint=f"webkiln --help shows what {option} takes"
        )
    return names


def _number(text: str, option: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{option} takes positive numbers, not {text!r}", hint=f"{option} 1,2")
    return int(text)


def _bounds(pairs: list[str], option: str = "--max") -> dict[str, int]:
    """NAME=N pairs as a mapping."""
    bounds = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or not value.isdigit() or int(value) < 1:
            raise InputError(
                f"{option} takes NAME=N with a positive number, not {pair!r}",
                hint=f"{option} sequence=128",
            )
        bounds[name] = int(value)
    return bounds


def _constants(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, the value a number or a list of numbers in JSON."""
    constants = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            constants[name] = json.loads(value)
        except ValueError:
            raise InputError(
                f"--constant takes NAME=VALUE with a number or a list of them, not {pair!r}",
                hint="--constant sr=16000",
            ) from None
    return constants


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    with terminate_as_interrupt():  # SIGTERM cleans up as Ctrl-C does
        code = _run(arguments)
    raise SystemExit(code)


def _run(arguments: list[str] | None) -> int:
    try:
        result = app(args=arguments, prog_name="webkiln", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer's own answer to Ctrl-C
            terminal.note("stopped")
        return code
    except typer.TyperException as error:  # wrong usage
        command = getattr(getattr(error, "ctx", None), "command_path", "webkiln")
        hint = f"{command} --help"
        return terminal.fail(InputError(error.format_message().rstrip("."), hint=hint))
    except (KeyboardInterrupt, typer.Abort):
        terminal.note("stopped")
        return _INTERRUPTED
    except BrokenPipeError:
        # the reader (head, less) has enough; keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (WebkilnError, Exception) as error:
        return terminal.fail(error)
