"""Run a bundle in headless Chromium and time it, a configuration at a time."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webkiln.bench import peak as calibration
from webkiln.bench.report import Configuration, Kernel, Peak, Report
from webkiln.browser import chromium_flags, find_chromium
from webkiln.bundle.plan import Plan
from webkiln.errors import InputError, MissingDependencyError, WebkilnError
from webkiln.inspect.bundle import read_plan
from webkiln.log import Progress, silent
from webkiln.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

__all__ = ["Options", "run"]

DEVICES = ("wasm", "webgpu")
PEER = "onnxruntime-web"
_TIMEOUT_MS = 600_000  # software WebGPU takes seconds a run
_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
          ".wasm": "application/wasm"}  # fmt: skip
_ISOLATED = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}


class BrowserError(WebkilnError):
    """The page failed: the browser's own message."""

    exit_code = 1


@dataclass(frozen=True)
class Options:
    """What to measure. `model` is what the peer runs: the model that the bundle was built from."""

    browser: str = "chromium"
    devices: tuple[str, ...] = ("wasm",)
    threads: tuple[int, ...] = (1, 2)
    runs: int = 20
    against: tuple[str, ...] = ()
    model: str | None = None


def run(folder: str | os.PathLike[str], options: Options, *, progress: Progress = silent) -> Report:
    """Measure the bundle in `folder`.

    Raises `InputError` for options that cannot be, `MissingDependencyError` for a browser,
    Playwright or a peer that is not installed, `InvalidModelError` for a broken bundle,
    `BrowserError` when the page fails or a result is wrong.
    """
    plan = read_plan(Path(folder))
    _check_options(options, plan)
    peer = _peer(options)
    jobs = [
        (device, threads)
        for device in options.devices
        for threads in (options.threads if device == "wasm" else (1,))
    ]
    configurations: list[Configuration] = []
    kernels: dict[str, list[Kernel]] = {}
    with Server(folder, port=0) as server, _browser(options.browser) as browser:
        progress("measure", 0, len(jobs) + 1, "this machine's peak")
        with _page(browser, server, peer) as page:
            peak = _measure_peak(page)
        for done, (device, threads) in enumerate(jobs, 1):
            progress("measure", done, len(jobs) + 1, f"{device}, {threads} threads")
            with _page(browser, server, peer) as page:
                found = _call(
                    page,
                    "measure",
                    {
                        "device": device,
                        "threads": threads,
                        "runs": options.runs,
                        "against": PEER if peer else None,
                        "profile": device not in kernels,
                    },
                )
            configurations += _configurations(found, device, threads)
            if device not in kernels:
                kernels[device] = [
                    _kernel(step, peak if device == "wasm" else None) for step in found["steps"]
                ]
        progress("measure", len(jobs) + 1, len(jobs) + 1, "")
        version = f"Chromium {browser.version}"
    return Report(plan["name"], version, peak, configurations, kernels)


def _check_options(options: Options, plan: Plan) -> None:
    for device in options.devices:
        if device not in DEVICES:
            raise InputError(f"no such device: {device}", hint="--device wasm,webgpu")
        if not plan.get(device):
            raise InputError(
                f"the bundle was not built for {device}", hint="webkiln build --targets webgpu,wasm"
            )
    for name in options.against:
        if name != PEER:
            raise InputError(f"no such peer: {name}", hint=f"--against {PEER}")
    if options.against and options.model is None:
        raise InputError(
            f"{PEER} needs the model that the bundle was built from", hint="--model MODEL"
        )


@dataclass(frozen=True)
class _Peer:
    files: Path
    model: bytes


def _peer(options: Options) -> _Peer | None:
    """The peer's files and the model for it as ONNX; None when there is nothing to compare with."""
    if not options.against or options.model is None:
        return None
    import onnx_ir as ir

    from webkiln.frontends import load

    source = load(options.model)
    return _Peer(_peer_files(), bytes(ir.to_proto(source.model).SerializeToString()))


def _peer_files() -> Path:
    chosen = os.environ.get("WEBKILN_ORT_WEB")
    places = [Path(chosen)] if chosen else [
        Path(folder, "node_modules", PEER) for folder in (".", "benchmarks")
    ]  # fmt: skip
    for place in places:
        if (place / "dist").is_dir():
            return place / "dist"
    raise MissingDependencyError(
        f"{PEER} is not in {' or '.join(map(str, places))}", hint=f"npm install {PEER}"
    )


@contextmanager
def _browser(name: str) -> Iterator[Any]:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise MissingDependencyError(
            "`webkiln bench` drives a browser through Playwright, which is not installed",
            hint='pip install "webkiln[bench]"',
        ) from error
    path = find_chromium() if name == "chromium" else name
    if path is None or not Path(path).is_file():
        found = "no Chromium was found" if path is None else f"there is no browser at {path}"
        raise MissingDependencyError(
            found, hint="apt-get install chromium, or --browser /path/to/chromium"
        )
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=chromium_flags())
        except Error as error:
            raise BrowserError(f"{path} does not start: {_first_line(error)}") from error
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _page(browser: Any, server: Server, peer: _Peer | None) -> Iterator[Page]:
    """A page beside the bundle, in a context of its own: nothing is cached from the last one."""

    def answer(route: Route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if "/__peer__/" in route.request.url and peer is not None:
            body = (peer.files / name).read_bytes()
        elif name == "model.onnx" and peer is not None:
            body = peer.model
        else:
            body = resources.files(__package__).joinpath(name).read_bytes()
        media = _TYPES.get(Path(name).suffix, "application/octet-stream")
        route.fulfill(body=body, content_type=media, headers=_ISOLATED | {"content-type": media})

    context = browser.new_context(service_workers="block")
    try:
        page = context.new_page()
        page.set_default_timeout(_TIMEOUT_MS)
        page.route("**/__bench__/*", answer)
        page.route("**/__peer__/*", answer)
        page.route("**/page.html", answer)
        page.goto(f"{server.url}page.html")
        page.wait_for_function("() => window.webkilnBench !== undefined")
        yield page
    finally:
        context.close()


def _call(page: Page, function: str, argument: Any) -> Any:
    from playwright.sync_api import Error

    try:
        return page.evaluate(
            f"argument => window.webkilnBench.{function}(JSON.parse(argument))",
            json.dumps(argument),
        )
    except Error as error:
        raise BrowserError(f"the page failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("Page.evaluate: ").removeprefix("Error: ")


def _measure_peak(page: Page) -> Peak:
    modules = [base64.b64encode(module).decode() for module in calibration.peak_modules()]
    found = _call(
        page,
        "peak",
        {
            "modules": modules,
            "flops": calibration.FLOPS,
            "bytes": calibration.BYTES,
            "pages": calibration.MEMORY // 65536,
        },
    )
    return Peak(found["gflops"], found["gbps"])


def _configurations(found: dict[str, Any], device: str, threads: int) -> list[Configuration]:
    ours, peer = found["ours"], found["peer"]
    entries = [
        Configuration(
            "webkiln",
            device,
            threads,
            ours["description"],
            ours["loadMs"],
            ours["firstMs"],
            ours["ms"],
        )
    ]
    if peer:
        if peer["difference"] > 0.01:
            raise BrowserError(
                f"{PEER} computes something else: outputs differ by {peer['difference']:.2g} of "
                "their largest value",
                hint="--model must be the model that the bundle was built from",
            )
        entries.append(
            Configuration(
                f"{PEER} {peer['version']}", device, threads, f"{device} × {threads}",
                peer["loadMs"], peer["firstMs"], peer["ms"], peer["difference"],
            )
        )  # fmt: skip
    return entries


def _kernel(step: dict[str, Any], peak: Peak | None) -> Kernel:
    """Its floor: no kernel is faster than its arithmetic or its memory traffic at the peak."""
    floor = None
    if peak is not None:
        floor = max(step["flops"] / peak.gflops, step["bytes"] / peak.gbps) / 1e6
    return Kernel(step["label"], step["kind"], step["ms"], step["flops"], step["bytes"], floor)
