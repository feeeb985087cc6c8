"""The finished app of a bundle: everything in its folder but ``model/``."""

from __future__ import annotations

import hashlib
import html
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from webkiln.errors import MissingDependencyError

__all__ = [
    "DESCRIPTIONS",
    "HEADERS",
    "fill",
    "headers_file",
    "inline_script",
    "minify_css",
    "policy",
    "render",
    "template",
]

DESCRIPTIONS = {
    "image-classification": "Says what a photograph shows, be it yours, a sample or the camera's.",
    "text-classification": "Reads a text and says which kind it is, while you write.",
    "feature-extraction": "Compares what sentences mean, not which words they share.",
    "text-generation": "A language model to talk to, running in your browser. It can be wrong: "
    "check what matters.",
    "generic": "A model that runs in your browser. See what goes in and out, run it, and take it "
    "into your own page.",
}

# What lets a page have threads: an origin of its own (HTML spec, cross-origin isolation).
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# As many shards as the runtime downloads at once, and no more than a phone has memory for.
_EARLY_SHARDS, _EARLY_BYTES = 4, 48 << 20
# A page that fills the screen reaches under a phone's notch, and ends where its keyboard begins.
_WHOLE_SCREEN = ", viewport-fit=cover, interactive-widget=resizes-content"
_HEAD = "head.js"  # of the built runtime: stands in the page itself
_FOREVER = "public, max-age=31536000, immutable"


def render(
    task: str,
    plan: Mapping[str, Any],
    title: str,
    dist_dir: Path,
    *,
    home: str = "./",
    description: str | None = None,
) -> dict[str, bytes]:
    """The files of the app by path: everything but ``model/`` and LICENSE.

    `task` names the page; one without a page of its own gets the generic one. `title` is the
    model's name as people read it, `dist_dir` the built runtime, `home` where the name at the top
    of the page leads to, `description` the sentence under the title.

    Raises `MissingDependencyError` if the runtime was not built.
    """
    page = task if task in DESCRIPTIONS else "generic"
    files = _runtime_files(page, dist_dir)
    head = files.pop(_HEAD).decode().strip()
    text = {
        "index.html": _index(
            page, plan, list(files), head, title, home, description or DESCRIPTIONS[page]
        ),
        "icon.svg": template("icon.svg"),
        "manifest.webmanifest": _manifest(title, description or DESCRIPTIONS[page]),
        "_headers": headers_file({"/": plan}),
        "vercel.json": _vercel(),
        "README.md": _readme(title, description or DESCRIPTIONS[page]),
    }
    files |= {name: content.encode() for name, content in text.items()}
    files["sw.js"] = _service_worker(plan, files).encode()
    return files


def template(name: str) -> str:
    """A file of the templates folder."""
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Puts `values` for ``{{name}}``, as they are. A name without a value is a `KeyError`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A Content-Security-Policy under which the page can reach nothing but its own origin."""
    hashes = " ".join(_hash(script) for script in scripts)
    style_hashes = " ".join(_hash(style) for style in styles)
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' 'wasm-unsafe-eval' {hashes}".rstrip(),
            f"style-src 'self' {style_hashes}".rstrip(),
            "img-src 'self' blob: data:",
            "media-src 'self' blob: mediastream:",
            "connect-src 'self' blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def inline_script(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def minify_css(text: str) -> str:
    """Without comments and needless white space."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\s*([{};])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def headers_file(apps: Mapping[str, Mapping[str, Any]]) -> str:
    """``_headers``, as Netlify and Cloudflare Pages read it at the root of a site.

    `apps` are plans by the folder that they are in, such as ``/`` or ``/photographs/``.
    """
    lines = ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    for folder, plan in apps.items():
        for variant in (plan.get("wasm") or {}).get("variants", []):
            lines += [f"{folder}model/{variant['file']}", "  Content-Type: application/wasm"]
        for shard in plan["weights"]["shards"]:
            lines += [f"{folder}model/{shard['file']}", f"  Cache-Control: {_FOREVER}"]
    return "\n".join(lines) + "\n"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _index(
    page: str,
    plan: Mapping[str, Any],
    files: Sequence[str],
    head: str,
    title: str,
    home: str,
    description: str,
) -> str:
    style, script = minify_css(template("app.css") + _part(page, "css")), template("start.js")
    main = _main(page, plan, html.escape(title), html.escape(description))
    return fill(
        template("index.html"),
        {
            "task": page,
            "title": html.escape(title),
            "description": html.escape(description),
            "viewport": _WHOLE_SCREEN if "<main" in template(f"{page}.html") else "",
            "policy": html.escape(policy([head, script], [style]), quote=False),
            "head": head,
            "shards": " ".join(_first_shards(plan)),
            "preload": _preload(files),
            "style": style,
            "script": script,
            "home": html.escape(home),
            "brand": "webkiln",
            "tools": _part(page, "tools.html").rstrip(),
            "main": main,
            "samples": inline_script(plan["task"].get("samples") or []),
        },
    )


def _main(page: str, plan: Mapping[str, Any], title: str, description: str) -> str:
    """What is between the page's head and its scripts: the layout that pages share, or its own."""
    body = template(f"{page}.html")
    parts = {
        "title": title,
        "description": description,
        "error": template("error.html").rstrip(),
        "controls": template("controls.html").rstrip(),
        "about": _about(plan["task"].get("about") or {}),
        "body": body.rstrip(),
    }
    return fill(body if "<main" in body else template("layout.html"), parts).rstrip()


def _part(page: str, ending: str) -> str:
    """What this page alone has of a kind; most have none."""
    file = resources.files(__package__).joinpath("templates", f"{page}.{ending}")
    return file.read_text("utf-8") if file.is_file() else ""


def _first_shards(plan: Mapping[str, Any]) -> Sequence[str]:
    """Files of the weights that the page asks for before it has the plan.

    Not of tables: which of those a run needs shows later.
    """
    first: list[Any] = [s for s in plan["weights"]["shards"] if "table" not in s][:_EARLY_SHARDS]
    while sum(shard["bytes"] for shard in first) > _EARLY_BYTES:
        first.pop()
    return [shard["file"] for shard in first]


def _preload(files: Sequence[str]) -> str:
    """Modules that the page imports sooner or later, so that they come together."""
    modules = [name for name in files if name.endswith(".js") and not name.endswith(".worker.js")]
    return "\n".join(f'<link rel="modulepreload" href="{name}">' for name in modules)


def _about(about: Mapping[str, str]) -> str:
    """Where the weights are from, under which licence, and what is said of them."""
    parts = [about.get("origin"), about.get("license") and f"licence {about['license']}"]
    facts = ", ".join(html.escape(part) for part in parts if part)
    lines = [f"  <p>Model: {facts}.</p>"] if facts else []
    if note := about.get("note"):
        lines.append(f"  <p>{html.escape(note)}</p>")
    return "\n".join(lines)


def _runtime_files(page: str, dist: Path) -> dict[str, bytes]:
    """The built JavaScript that this page needs, by its path in the bundle, and `_HEAD`."""
    try:
        built = json.loads((dist / "manifest.json").read_bytes())
        names = [*built["core"], *built["tasks"][page], *built["app"][page], _HEAD]
        return {name: (dist / name).read_bytes() for name in names}
    except (FileNotFoundError, KeyError) as error:
        missing = error.filename if isinstance(error, FileNotFoundError) else f"{error} in {dist}"
        raise MissingDependencyError(
            f"the browser runtime is not built ({missing} is missing)",
            hint="run `make runtime` in a checkout; an installed webkiln has it",
        ) from None


def _manifest(title: str, description: str) -> str:
    icon = {"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}
    manifest = {
        "name": title,
        "short_name": title[:24],
        "description": description,
        "start_url": "./",
        "scope": "./",
        "id": "./",
        "display": "standalone",
        "background_color": "#faf8f5",
        "theme_color": "#faf8f5",
        "icons": [icon | {"purpose": "any"}, icon | {"purpose": "maskable"}],
    }
    return json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"


def _service_worker(plan: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Its version covers the plan and every file, so that any change renews the cache."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    not_asked = {"_headers", "vercel.json", "README.md", "webkiln.d.ts", "index.html"}
    kept = ["./", *sorted(set(files) - not_asked), *_model_files(plan)]
    variants = (plan.get("wasm") or {}).get("variants", [])
    needing: dict[bool, list[str]] = {True: [], False: []}
    for variant in variants:
        relaxed = "relaxed-simd" in variant["features"]
        needing[relaxed].append(f"model/{variant['file']}")
    return fill(
        template("sw.js"),
        {
            "version": json.dumps(digest.hexdigest()[:16]),
            "files": json.dumps(kept),
            "relaxed": json.dumps(needing[True]),
            # Where all variants are plain, every browser takes one of them.
            "plain": json.dumps(needing[False] if needing[True] else []),
        },
    )


def _model_files(plan: Mapping[str, Any]) -> list[str]:
    """What the runtime may ask for under ``model/``, but the weights, which it keeps itself."""
    names = ["plan.json"]
    for target in ("wasm", "webgpu"):
        names += [variant["file"] for variant in (plan.get(target) or {}).get("variants", [])]
    names += [golden["file"] for golden in plan["golden"]]
    task = plan["task"]
    if tokenizer := task.get("tokenizer") or task.get("text", {}).get("tokenizer"):
        names.append(tokenizer)
    names += [sample["file"] for sample in task.get("samples") or [] if isinstance(sample, dict)]
    return [f"model/{name}" for name in dict.fromkeys(names)]


def _vercel() -> str:
    everything = [{"key": name, "value": value} for name, value in HEADERS.items()]
    forever = [{"key": "Cache-Control", "value": _FOREVER}]
    headers = [
        {"source": "/(.*)", "headers": everything},
        {"source": "/(.*)/([0-9a-f]{64}).bin", "headers": forever},
    ]
    return json.dumps({"headers": headers}, indent=2) + "\n"


def _readme(title: str, description: str) -> str:
    """For people, with the front matter that a static Hugging Face Space reads."""
    return f"""\
---
title: {json.dumps(title, ensure_ascii=False)}
emoji: 🔥
colorFrom: yellow
colorTo: red
sdk: static
pinned: false
custom_headers:
  cross-origin-opener-policy: same-origin
  cross-origin-embedder-policy: require-corp
  cross-origin-resource-policy: cross-origin
---

# {title}

{description}

This folder is a finished web page. The model in it runs in the visitor's browser, on WebGPU or
WebAssembly; nothing is computed on a server. Any host of static files can serve it:

- **Locally:** `webkiln serve .`
- **Netlify, Cloudflare Pages:** upload the folder; `_headers` is read from it.
- **Vercel:** upload the folder; `vercel.json` is read from it.
- **Hugging Face Spaces:** push the folder to a static Space; the head of this file sets it up.
- **Anything else:** upload the folder. Threads need the two `Cross-Origin` headers above; where
  they can't be set, the page's service worker adds them from the second visit on.
"""
