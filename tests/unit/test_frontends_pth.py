"""torch checkpoints without torch: both containers, strides, and everything that is refused."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webkiln.errors import InvalidModelError, UnsupportedModelError, WebkilnError
from webkiln.frontends import load
from webkiln.frontends.pth import read_checkpoint

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
TYPES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
         "int64": "LongStorage", "int32": "IntStorage", "uint8": "ByteStorage",
         "bool": "BoolStorage"}  # fmt: skip


class FakeTensor:
    """Pickles as torch's tensors do; `base` is the storage."""

    def __init__(self, base, shape=None, strides=None, offset=0):
        self.base = base
        self.shape = base.shape if shape is None else shape
        steps = tuple(s // base.itemsize for s in base.strides)
        self.strides = steps if strides is None else strides
        self.offset = offset


class FakeParameter:
    def __init__(self, tensor):
        self.tensor = tensor


class FakeStorage:
    def __init__(self, base):
        self.base = base


class Pickler(pickle.Pickler):
    """Writes what torch.save would, with stand-ins for the names of torch."""

    def __init__(self, file, torch):
        super().__init__(file, protocol=2)
        self.torch, self.storages = torch, {}

    def persistent_id(self, value):
        if not isinstance(value, FakeStorage):
            return None
        key = str(id(value.base))
        self.storages[key] = value.base
        kind = getattr(self.torch, TYPES[value.base.dtype.name])
        return ("storage", kind, key, "cpu", value.base.size)

    def reducer_override(self, value):
        utils = sys.modules["torch._utils"]
        if isinstance(value, FakeTensor):
            storage = FakeStorage(value.base)
            return utils._rebuild_tensor_v2, (
                storage, value.offset, tuple(value.shape), tuple(value.strides), False,
                collections.OrderedDict(),
            )  # fmt: skip
        if isinstance(value, FakeParameter):
            return utils._rebuild_parameter, (value.tensor, True, collections.OrderedDict())
        return NotImplemented


@pytest.fixture
def torch(monkeypatch):
    """Modules that have no more of torch than the names in its checkpoints."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in TYPES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def dump(torch, value):
    file = io.BytesIO()
    pickler = Pickler(file, torch)
    pickler.dump(value)
    return file.getvalue(), pickler.storages


def write_zip(path, torch, value, *, compress=False, extra=None):
    data, storages = dump(torch, value)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, base in storages.items():
            archive.writestr(f"archive/data/{key}", base.tobytes())
        for name, content in (extra or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_legacy(path, torch, value):
    data, storages = dump(torch, value)
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    with path.open("wb") as file:
        for part in (MAGIC, PROTOCOL, system):
            file.write(pickle.dumps(part, protocol=2))
        file.write(data)
        file.write(pickle.dumps(sorted(storages), protocol=2))
        for _, base in sorted(storages.items()):
            file.write(struct.pack("<q", base.size) + base.tobytes())
    return path


def state():
    rng = np.random.default_rng(0)
    base = np.arange(24, dtype=np.float32)
    tensors = {
        "plain": (FakeTensor(base, (4, 6), (6, 1)), base.reshape(4, 6)),
        "transposed": (FakeTensor(base, (6, 4), (1, 6)), base.reshape(4, 6).T),
        "part": (FakeTensor(base, (2, 2), (6, 2), 7), base[[[7, 9], [13, 15]]]),
        "expanded": (FakeTensor(base, (3, 2), (0, 1), 4), np.array([[4, 5]] * 3, np.float32)),
        "scalar": (FakeTensor(base, (), (), 5), np.float32(5)),
        "empty": (FakeTensor(np.empty(0, np.float32), (0, 3), (3, 1)), np.empty((0, 3))),
    }
    for dtype in TYPES:
        array = (rng.standard_normal(5) * 3).astype(dtype)
        tensors[dtype] = (FakeTensor(array), array)
    tensors["parameter"] = (FakeParameter(FakeTensor(base, (24,), (1,))), base)
    return tensors


@pytest.mark.parametrize("form", ["legacy", "zip", "deflated"])
def test_tensors_come_out_as_they_went_in(tmp_path, torch, form):
    tensors = state()
    ordered = collections.OrderedDict((name, tensor) for name, (tensor, _) in tensors.items())
    ordered._metadata = {"": {"version": 1}}
    path = tmp_path / "w.pth"
    if form == "legacy":
        write_legacy(path, torch, ordered)
    else:
        write_zip(path, torch, ordered, compress=form == "deflated")
    found = read_checkpoint(path)
    assert list(found) == list(tensors)
    for name, (_, expected) in tensors.items():
        got = found[name].numpy()
        assert got.dtype == np.asarray(expected).dtype or name == "empty"
        np.testing.assert_array_equal(got, expected)
        assert got.flags.c_contiguous
        assert list(found[name].shape) == list(np.shape(expected))


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_weights_inside_a_training_checkpoint(tmp_path, torch, key):
    tensor = FakeTensor(np.arange(3, dtype=np.float32))
    tree = {"epoch": 3, "lr": [0.1, 1e-3], "best": None, key: {"module.layer.weight": tensor}}
    found = read_checkpoint(write_zip(tmp_path / "w.pt", torch, tree))
    assert list(found) == ["layer.weight"]


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def attacks():
    import os
    import subprocess

    return {
        "posix.system": Evil(os.system, "touch /tmp/webkiln-was-here"),
        "builtins.eval": Evil(eval, "1 + 1"),
        "builtins.exec": Evil(exec, "raise SystemExit"),
        "subprocess.Popen": Evil(subprocess.Popen, ["true"]),
        "builtins.getattr": Evil(getattr, "x", "y"),
        "numpy": np.float64(1),
        "datetime": __import__("datetime").date(2020, 1, 1),
    }


@pytest.mark.parametrize("name", attacks())
@pytest.mark.parametrize("form", [write_zip, write_legacy])
def test_anything_but_tensors_is_refused_by_name(tmp_path, torch, name, form):
    value = attacks()[name]
    weights = {"w": FakeTensor(np.zeros(2, np.float32)), "evil": [{"deep": (value,)}]}
    path = form(tmp_path / "w.pth", torch, weights)
    # exec and eval are called __builtin__ in pickles of protocol 2
    tail = name.rpartition(".")[2]
    with pytest.raises(UnsupportedModelError, match=rf"holds .*{tail}.*refused") as error:
        read_checkpoint(path)
    assert "torch.save(model.state_dict()" in str(error.value)


def raw_zip(path, data, members=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        for name, content in members:
            archive.writestr(f"a/{name}", content)
    return path


PICKLES = {
    "a call of a known name that isn't a function": b"ctorch\nFloatStorage\n)R.",
    "instances by INST": b"(ios\nsystem\n.",
    "instances by OBJ": b"(cos\nsystem\nX\x02\x00\x00\x00lso.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "state on a function": b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "extension registry": b"\x82\x01.",
    "no end": b"\x80\x02}",
    "stack underrun": b"\x80\x02R.",
    "unhashable key": b"\x80\x02}]K\x01s.",
    "unknown memo": b"\x80\x02h\x07.",
    "odd items": b"\x80\x02}(K\x01u.",
    "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a storage of nothing": b"\x80\x02NQ.",
    "bytes beyond the file": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "not a pickle": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("name", PICKLES)
def test_malformed_pickles_end_in_one_clear_error(tmp_path, name):
    with pytest.raises(WebkilnError) as error:
        read_checkpoint(raw_zip(tmp_path / "w.pth", PICKLES[name]))
    assert error.value.message.startswith("w.pth: ")


def tensor_pickle(shape, strides, offset=0, length=4):
    """A state dict with one tensor over storage '0', written out by hand."""

    def ints(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"

    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ"
        + struct.pack("<i", length)
        + b"tQJ" + struct.pack("<i", offset) + ints(shape) + ints(strides) + b"\x89}tRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ([5], [1], 0),
        ([2], [1], 3),
        ([2], [-1], 1),
        ([-2], [1], 0),
        ([2, 2], [1], 0),
        ([2**30, 2**30], [0, 0], 0),
        ([2], [1], -1),
    ],
)
def test_tensors_reaching_outside_their_storage_are_refused(tmp_path, shape, strides, offset):
    data = tensor_pickle(shape, strides, offset)
    path = raw_zip(tmp_path / "w.pth", data, [("data/0", bytes(16))])
    with pytest.raises(InvalidModelError, match="'w' reaches outside its storage"):
        read_checkpoint(path)


def test_storages_missing_or_of_another_size(tmp_path):
    data = tensor_pickle([4], [1])
    with pytest.raises(InvalidModelError, match="storage '0' is missing"):
        read_checkpoint(raw_zip(tmp_path / "a.pth", data))
    with pytest.raises(InvalidModelError, match="storage '0' has 12 bytes, not 16"):
        read_checkpoint(raw_zip(tmp_path / "b.pth", data, [("data/0", bytes(12))]))


def test_other_archives(tmp_path):
    path = raw_zip(tmp_path / "s.pt", b"", [("code/__torch__.py", "def forward(self): ...")])
    with pytest.raises(UnsupportedModelError, match="TorchScript program"):
        load(path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UnsupportedModelError, match="zip archive of no kind that is known"):
        load(tmp_path / "x.zip")


def test_truncated_legacy_checkpoint(tmp_path, torch):
    path = write_legacy(tmp_path / "w.pth", torch, {"w": FakeTensor(np.zeros(1000, np.float32))})
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(InvalidModelError, match=r"w\.pth is truncated"):
        load(path)
    path.write_bytes(data[:100])
    with pytest.raises(InvalidModelError, match="malformed or truncated"):
        load(path)


def test_a_checkpoint_without_tensors_or_of_an_unknown_architecture(tmp_path, torch):
    with pytest.raises(InvalidModelError, match="no tensors in this checkpoint"):
        read_checkpoint(write_zip(tmp_path / "w.pth", torch, {"epoch": 3}))
    path = write_zip(tmp_path / "v.pth", torch, {"conv.weight": FakeTensor(np.zeros(2, "f4"))})
    with pytest.raises(UnsupportedModelError, match=r"no known architecture.*conv\.weight"):
        load(path)


def test_shared_references_do_not_explode(tmp_path):
    """Lists of lists of the same list: 2**60 items if one walked them all."""
    data = b"\x80\x02]q\x00" + b"".join(b"]q" + bytes([n + 1]) + b"(h" + bytes([n]) + b"h"
                                         + bytes([n]) + b"e" for n in range(60)) + b"."  # fmt: skip
    with pytest.raises(InvalidModelError, match="no tensors"):
        read_checkpoint(raw_zip(tmp_path / "w.pth", data))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_pickles_never_do_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "w.pth"
    pickled = bytearray(tensor_pickle([2, 2], [2, 1]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(pickled) - 1))
        pickled[at] = data.draw(st.integers(0, 255))
    try:
        found = read_checkpoint(raw_zip(path, bytes(pickled), [("data/0", bytes(16))]))
    except WebkilnError:
        return
    for tensor in found.values():
        assert tensor.numpy().size <= 1 << 20
