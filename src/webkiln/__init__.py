"""webkiln: fire a model once, into a static folder that runs in every browser.

import webkiln

bundle = webkiln.build("model.onnx", task="image-classification")
bundle.run({"x": array})
bundle.save("dist")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webkiln.errors import WebkilnError

if TYPE_CHECKING:
    from webkiln.bundle import Bundle
    from webkiln.compile import build

__all__ = ["Bundle", "WebkilnError", "__version__", "build"]

__version__ = "0.1.0"

# The compiler's libraries take a second to import; `webkiln --help` and `webkiln serve` need none.
_LAZY = {"Bundle": "webkiln.bundle", "build": "webkiln.compile"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
