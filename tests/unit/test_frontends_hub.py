"""Repository ids, against a server on localhost that speaks the Hub's protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import COMMIT, Hub

from webkiln.frontends.hub import choose_files

ONNX = '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'

# huggingface_hub reads its settings once, when it is imported: hence a process of its own, which
# answers a line of JSON for each line (repository, revision) that it gets.
WORKER = """
import json, sys
from webkiln.errors import WebkilnError
from webkiln.frontends import load

for line in sys.stdin:
    seen = []
    repo, revision = json.loads(line)
    try:
        source = load(repo, revision=revision, progress=lambda *step: seen.append(step))
        answer = {
            "name": source.name,
            "config": source.config,
            "provenance": source.provenance,
            "operators": [node.op_type for node in source.model.graph],
            "progress": seen,
        }
    except WebkilnError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """Another process whose huggingface_hub has these settings."""

    def __init__(self, **settings):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | settings,
        )

    def load(self, repo, revision=None):
        self.process.stdin.write(json.dumps([repo, revision]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def settings(server, tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    return {"HF_ENDPOINT": server.url, "HF_HOME": home, "HF_HUB_CACHE": f"{home}/hub"}


@pytest.fixture(scope="module")
def worker(settings):
    worker = Worker(**settings)
    yield worker
    worker.close()


@pytest.fixture
def hub(server):
    server.requests.clear()
    yield server
    server.fail_with = None


@pytest.fixture
def repo(hub, request):
    """A repository of the test's own, so that the cache starts without it."""
    name = f"someone/{request.node.name.removeprefix('test_')[:40]}"
    folder = hub.root / name
    (folder / "onnx").mkdir(parents=True)
    ir.save(ir.from_onnx_text(ONNX), folder / "onnx" / "model.onnx")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "tiny", "id2label": {"0": "no", "1": "yes"}})
    )
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (folder / "flax_model.msgpack").write_bytes(b"not wanted" * 1000)
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"not wanted")
    return name


def test_a_repository_is_downloaded_and_described(hub, worker, repo):
    source = worker.load(repo)
    assert source["name"] == repo.rpartition("/")[2]
    assert source["config"]["labels"] == ["no", "yes"]
    assert source["provenance"]["license"] == "mit"
    assert source["provenance"]["revision"] == COMMIT
    assert source["provenance"]["origin"] == f"{hub.url}/{repo}"
    assert source["operators"] == ["Relu"]
    assert source["progress"][-1] == [repo, 1.0]
    fractions = [fraction for _, fraction in source["progress"]]
    assert fractions == sorted(fractions)


def test_only_what_is_needed_is_downloaded(hub, worker, repo):
    worker.load(repo)
    files = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert files == {"model.onnx", "config.json", "README.md"}


def test_what_is_in_the_cache_is_not_downloaded_again(hub, worker, repo):
    worker.load(repo)
    hub.requests.clear()
    assert worker.load(repo)["operators"] == ["Relu"]
    assert not [request for request in hub.requests if request.startswith("GET /someone")]


def test_the_cache_serves_when_the_hub_is_out_of_order(hub, worker, repo):
    worker.load(repo)
    hub.fail_with = 500
    assert worker.load(repo)["config"]["labels"] == ["no", "yes"]


def test_offline_uses_the_cache_only(hub, worker, repo, settings):
    worker.load(repo)
    hub.requests.clear()
    offline = Worker(**settings, HF_HUB_OFFLINE="1")
    assert offline.load(repo)["operators"] == ["Relu"]
    missing = offline.load("someone/other")
    offline.close()
    assert missing["error"] == "ModelNotFoundError"
    assert "HF_HUB_OFFLINE is set" in missing["message"]
    assert hub.requests == []


def test_a_revision_is_passed_on(hub, worker, repo):
    assert worker.load(repo, "v1")["provenance"]["revision"] == COMMIT
    assert any("/revision/v1" in request for request in hub.requests)
    missing = worker.load(repo, "v9")
    assert missing["error"] == "ModelNotFoundError"
    assert "has no revision 'v9'" in missing["message"]


def test_no_such_repository(hub, worker):
    missing = worker.load("someone/nothing")
    assert missing["error"] == "ModelNotFoundError"
    assert "repository called someone/nothing" in missing["message"]


def test_a_gated_repository_says_where_to_accept_its_licence(hub, worker, repo):
    hub.gated.add(repo)
    answer = worker.load(repo)
    assert answer["error"] == "ModelNotFoundError"
    assert "is gated" in answer["message"]
    assert f"{hub.url}/{repo}" in answer["message"]


def test_a_hub_out_of_order_is_named(hub, worker, repo):
    hub.fail_with = 500
    answer = worker.load(repo)
    assert answer["error"] == "ModelNotFoundError"
    assert f"cannot be downloaded from {hub.url}" in answer["message"]


def test_a_repository_without_weights(hub, worker, repo):
    for file in (hub.root / repo / "onnx").iterdir():
        file.unlink()
    answer = worker.load(repo)
    assert answer["error"] == "InvalidModelError"
    assert "no weights in a form that is read" in answer["message"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx"],
            ["config.json", "model.safetensors"],
        ),
        (
            ["model.safetensors.index.json", "model-1-of-2.safetensors", "x/y.safetensors"],
            ["model.safetensors.index.json", "model-1-of-2.safetensors"],
        ),
        (["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx"],
         ["onnx/model.onnx", "onnx/model.onnx_data"]),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (["detector.onnx"], ["detector.onnx"]),
        (["1_Pooling/config.json", "2_Dense/config.json"], ["1_Pooling/config.json"]),
    ],
)  # fmt: skip
def test_one_form_of_the_weights_is_chosen(names, expected):
    assert choose_files(names) == expected


def test_files_of_a_language_model():
    names = [
        "config.json", "generation_config.json", "chat_template.jinja", "genai_config.json",
        "tokenizer.json", "tokenizer_config.json", "model.safetensors",
    ]  # fmt: skip
    others = ["vocab.json", "merges.txt", "training_args.bin", "onnx/model_q4.onnx"]
    assert sorted(choose_files([*names, *others])) == sorted(names)
