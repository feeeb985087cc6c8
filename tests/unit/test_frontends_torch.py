"""torch modules, exported programs and real checkpoints; skipped where torch isn't installed."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from webkiln.errors import InputError, InvalidModelError, UnsupportedModelError
from webkiln.frontends import load
from webkiln.frontends.pth import read_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed (the torch extra)")
from torch import nn  # noqa: E402


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, image, scale=None):
        x = torch.relu(self.norm(self.conv(image)))
        x = self.head(self.drop(x.mean((2, 3))))
        return x if scale is None else x * scale


def run(source, **feeds):
    session = ort.InferenceSession(ir.to_proto(source.model).SerializeToString())
    return session.run(None, {name: value.numpy() for name, value in feeds.items()})


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = Small()
    module.norm.running_mean.uniform_(-1, 1)
    return module


def expected(module, *args, **kwargs):
    was, _ = module.training, module.eval()
    try:
        return module(*args, **kwargs).detach().numpy()
    finally:
        module.train(was)


def test_a_module_is_traced_as_it_is_used(module):
    x = torch.randn(1, 3, 16, 16)
    source = load(module, args=(x,))
    assert source.name == "Small"
    assert module.training  # left as it was
    np.testing.assert_allclose(run(source, image=x)[0], expected(module, x), rtol=1e-4, atol=1e-5)


def test_dynamic_shapes_keep_their_names(module):
    batch, side = torch.export.Dim("batch", max=8), torch.export.Dim("side", min=4, max=64)
    x = torch.randn(2, 3, 16, 16)
    source = load(module, args=(x,), dynamic_shapes={"image": {0: batch, 2: side, 3: side}})
    assert source.model.graph.inputs[0].shape == ["batch", 3, "side", "side"]
    y = torch.randn(3, 3, 9, 9)
    np.testing.assert_allclose(run(source, image=y)[0], expected(module, y), rtol=1e-4, atol=1e-5)


def test_keyword_arguments(module):
    x, scale = torch.randn(1, 3, 8, 8), torch.tensor([2.0])
    source = load(module, args=(x,), kwargs={"scale": scale})
    want = expected(module, x, scale=scale)
    got = run(source, image=x, scale=scale)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_an_exported_program_in_memory_and_in_a_file(module, tmp_path):
    x = torch.randn(1, 3, 8, 8)
    program = torch.export.export(module.eval(), (x,))
    torch.export.save(program, tmp_path / "small.pt2")
    renamed = tmp_path / "without-suffix"
    renamed.write_bytes((tmp_path / "small.pt2").read_bytes())
    for source in (load(program), load(tmp_path / "small.pt2"), load(renamed)):
        got = run(source, image=x)[0]
        np.testing.assert_allclose(got, expected(module, x), rtol=1e-4, atol=1e-5)
    assert load(tmp_path / "small.pt2").name == "small"


def test_errors_name_the_reason(module, tmp_path):
    with pytest.raises(InputError, match="needs example arguments"):
        load(module)

    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(UnsupportedModelError, match="could not export Branching"):
        load(Branching(), args=(torch.ones(3),))
    program = torch.export.export(module.eval(), (torch.randn(1, 3, 8, 8),))
    path = tmp_path / "small.pt2"
    torch.export.save(program, path)
    import zipfile

    with zipfile.ZipFile(path) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "broken.pt2", "w") as archive:
        for name, content in names.items():
            archive.writestr(name, b"{}" if name.endswith(".json") else content)
    with pytest.raises(InvalidModelError, match=r"broken\.pt2 cannot be read by torch"):
        load(tmp_path / "broken.pt2")


@pytest.mark.parametrize("zipped", [True, False])
def test_real_checkpoints_are_read_without_torch(module, tmp_path, zipped):
    tensors = dict(module.state_dict())
    tensors["transposed"] = torch.arange(12.0).reshape(3, 4).T
    tensors["part"] = torch.arange(20)[3:9:2]
    tensors["channels_last"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors["half"] = torch.randn(3).half()
    tensors["bfloat"] = torch.randn(3).bfloat16()
    tensors["flag"] = torch.tensor([True, False])
    tensors["unsigned"] = torch.tensor([1, 2, 60000], dtype=torch.uint16)
    tensors["parameter"] = nn.Parameter(torch.randn(2, 2))
    path = tmp_path / "w.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        got = found[name].numpy()
        want = tensor.detach()
        if want.dtype == torch.bfloat16:
            got, want = got.astype(np.float32), want.float()
        np.testing.assert_array_equal(got, want.numpy())


def test_a_pickled_module_is_refused_by_name(module, tmp_path):
    path = tmp_path / "whole.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UnsupportedModelError, match=r"holds torch\.nn\.modules\.linear\.Linear"):
        load(path)


def test_a_torchscript_program_is_told_apart(module, tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(module.eval(), torch.randn(1, 3, 8, 8)), path)
    with pytest.raises(UnsupportedModelError, match="TorchScript program"):
        load(path)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("head", [None, "SequenceClassification", "TokenClassification"])
def test_encoders_agree_with_transformers(tmp_path, kind, head):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    name = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[kind]
    sizes = {"vocab_size": 50, "max_position_embeddings": 32, "num_labels": 3}
    sizes |= (
        {"dim": 24, "n_heads": 4, "hidden_dim": 40, "n_layers": 2}
        if kind == "distilbert"
        else {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40,
              "num_hidden_layers": 2, "pad_token_id": 1}
    )  # fmt: skip
    config = getattr(transformers, name + "Config")(**sizes)
    torch.manual_seed(0)
    model = getattr(transformers, name + (f"For{head}" if head else "Model"))(config).eval()
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    ids, mask = torch.tensor([[5, 6, 7, 8, 1, 1]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=mask)[0].numpy()
    source = load(tmp_path / "m")
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    names = {value.name for value in source.model.graph.inputs}
    got = run(source, **{name: feeds[name] for name in names})[0]
    if got.ndim == 3:  # what padding becomes doesn't matter
        got, want = got[:, :4], want[:, :4]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
