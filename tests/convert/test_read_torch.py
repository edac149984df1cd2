"""The whitelisting checkpoint reader: equal to torch's on tensors, deaf to everything else."""

import ast
import collections
import os
import pathlib
import pickle
import zipfile

import checkpoints
import ml_dtypes
import numpy as np
import pytest

from convert import read_torch, write_torch
from convert.read_torch import CheckpointError, Tensor

RNG = np.random.default_rng(0)
TREE = {
    "state_dict": {
        "a.weight": RNG.standard_normal((3, 4, 5)).astype(np.float32),
        "a.counter": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        **{f"of.{np.dtype(t).name}": RNG.integers(0, 2, (2, 3)).astype(t) for t in read_torch.STORAGE_DTYPES.values()},
    },
    "epoch": 362,
    "big": 2**40,
    "lr": 1e-5,
    "done": True,
    "note": "naïve",
    "nothing": None,
    "list": [1, (2, "x"), {"y": np.ones(2, np.float32)}],
}


def plain(value):
    """Lazy tensors read, dict subclasses made dicts."""
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v) for v in value)
    return value


def assert_same(got, want):
    assert type(got) is type(want)
    if isinstance(want, np.ndarray):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert got.tobytes() == want.tobytes()
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert_same(g, w)
    else:
        assert got == want


@pytest.mark.parametrize("save", [checkpoints.save_zip, checkpoints.save_legacy])
def test_own_files_come_back(tmp_path, save):
    assert_same(plain(read_torch.load(save(TREE, tmp_path / "x.pt"))), TREE)


def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    for save in (checkpoints.save_zip, checkpoints.save_legacy):
        loaded = torch.load(save(TREE, tmp_path / "x.pt"), weights_only=True)
        assert loaded["epoch"] == 362 and loaded["big"] == 2**40 and loaded["list"][1] == (2, "x")
        assert list(loaded["state_dict"]) == list(TREE["state_dict"])
        for key, array in TREE["state_dict"].items():
            tensor = loaded["state_dict"][key]
            assert tuple(tensor.shape) == array.shape
            assert tensor.dtype == getattr(torch, np.dtype(array.dtype).name)
            assert torch.equal(tensor.to(torch.float64), torch.from_numpy(array.astype(np.float64)))


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_writes(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    base = torch.arange(24.0).reshape(2, 3, 4)
    tied = torch.randn(3)
    saved = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "view": base[:, 1:, ::2],
        "transposed": base.permute(2, 0, 1),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "tied": [tied, tied],
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.zeros(0, 2),
        "half": torch.ones(2).half(),
        "bfloat16": torch.full((2,), 1.5).bfloat16(),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "size": base.shape,
        "counter": collections.Counter(a=2),
        "default": collections.defaultdict(list, b=[1]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }
    path = tmp_path / "x.pth.tar"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    got = plain(read_torch.load(path))
    for key, tensor in saved["model"].items():
        assert_same(got["model"][key], tensor.numpy())
    for key in ("view", "transposed", "expanded", "scalar", "empty", "half"):
        np.testing.assert_array_equal(got[key], saved[key].numpy())
        assert got[key].dtype == saved[key].numpy().dtype
    np.testing.assert_array_equal(got["tied"][0], tied.numpy())
    np.testing.assert_array_equal(got["parameter"], np.ones((2, 2)))
    assert got["bfloat16"].dtype == ml_dtypes.bfloat16 and got["bfloat16"].tolist() == [1.5, 1.5]
    assert got["size"] == (2, 3, 4) and got["counter"] == {"a": 2} and got["default"] == {"b": [1]}
    np.testing.assert_array_equal(got["optimizer"]["state"][0]["exp_avg"].shape, (4, 3))


def test_tensors_are_read_only_when_asked_for(tmp_path):
    path = checkpoints.save_legacy({"a": np.ones(1000, np.float32), "b": np.ones(1, np.float32)}, tmp_path / "x.pt")
    tree = read_torch.load(path)
    path.write_bytes(path.read_bytes()[:-2000])  # what comes after the header is gone
    assert tree["a"].shape == (1000,)
    with pytest.raises(CheckpointError, match=r"x\.pt: truncated"):
        tree["b"].numpy()


class Payload:
    """Pickles to a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", ["zip", "plain pickle"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, f"{os.name}.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (pickle.loads, "pickle.loads"),
        (__import__, "builtins.__import__"),
    ],
)
def test_code_is_refused_and_not_run(tmp_path, form, function, name):
    witness = tmp_path / "ran"
    body = pickle.dumps({"state_dict": Payload(function, f"touch {witness}")}, protocol=2)
    path = tmp_path / "evil.pt"
    if form == "zip":
        checkpoints.save_pickle(body, path)
    else:
        path.write_bytes(body)
    with pytest.raises(CheckpointError, match=rf"evil\.pt: refused, .*{name}"):
        read_torch.load(path)
    assert not witness.exists()


def test_a_payload_after_a_legacy_header_is_refused(tmp_path):
    path = checkpoints.save_legacy({"a": np.ones(3, np.float32)}, tmp_path / "evil.pt")
    head = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (read_torch.LEGACY_MAGIC, read_torch.LEGACY_PROTOCOL, checkpoints.SYSTEM)
    )
    assert path.read_bytes().startswith(head)
    path.write_bytes(head + pickle.dumps(Payload(os.system, "true"), protocol=2))
    with pytest.raises(CheckpointError, match="refused"):
        read_torch.load(path)


def test_a_whole_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"module\.pt: refused.*torch\.nn.*state_dict"):
        read_torch.load(tmp_path / "module.pt")


def opcodes(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def name(module, attribute):
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


KNOWN = sorted({*read_torch._KNOWN, ("argparse", "Namespace"), ("numpy", "dtype"), ("builtins", "dict")})


@pytest.mark.parametrize("known", KNOWN, ids=".".join)
def test_a_pickle_cannot_change_the_reader(tmp_path, known):
    """BUILD on a permitted name would set attributes of our own classes (`__defaults__`, `__new__`, ...)."""
    before = {key: dict(vars(value)) for key, value in read_torch._KNOWN.items()}
    state = pickle.dumps((None, {"__setstate__": "changed", "dtype": "changed"}), protocol=2)[2:-1]
    path = checkpoints.save_pickle(opcodes(name(*known), state, pickle.BUILD), tmp_path / "x.pt")
    try:
        read_torch.load(path)
    except CheckpointError as error:
        assert "x.pt" in str(error)
    assert {key: dict(vars(value)) for key, value in read_torch._KNOWN.items()} == before
    assert_same(plain(read_torch.load(checkpoints.save_zip(TREE, tmp_path / "y.pt"))), TREE)


@pytest.mark.parametrize("known", KNOWN, ids=".".join)
@pytest.mark.parametrize("make", [pickle.REDUCE, pickle.NEWOBJ], ids=["reduce", "newobj"])
def test_odd_arguments_are_an_error_at_most(tmp_path, known, make):
    body = opcodes(name(*known), pickle.MARK, pickle.BININT1 + b"\x05", pickle.TUPLE, make)
    try:
        read_torch.load(checkpoints.save_pickle(body, tmp_path / "x.pt"))
    except CheckpointError as error:
        assert "x.pt" in str(error)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(1, (4,), (1,)), (0, (2, 3), (3, 1)), (0, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, size, stride):
    def plain_value(value):
        return write_torch._value(value, [], False)

    pid = [plain_value("storage"), name("torch", "FloatStorage"), *map(plain_value, ("0", "cpu", 4))]
    arguments = [pickle.MARK, *pid, pickle.TUPLE, pickle.BINPERSID, *map(plain_value, (offset, size, stride, False))]
    arguments += [name("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE]
    rebuild = [name("torch._utils", "_rebuild_tensor_v2"), pickle.MARK, *arguments, pickle.TUPLE, pickle.REDUCE]
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        read_torch.load(checkpoints.save_pickle(opcodes(*rebuild), tmp_path / "x.pt"))


def test_settings_of_training_frameworks_become_stand_ins(tmp_path):
    """As fairseq writes them: an argparse.Namespace, omegaconf nodes, numpy scalars, typing objects."""
    import argparse

    body = opcodes(
        pickle.EMPTY_DICT,
        pickle.MARK,
        write_torch._value("args", [], False),
        pickle.dumps(argparse.Namespace(encoder_layers=24), protocol=2)[2:-1],
        write_torch._value("cfg", [], False),
        name("omegaconf.dictconfig", "DictConfig"),
        pickle.EMPTY_TUPLE,
        pickle.NEWOBJ,
        write_torch._value({"_content": {"lr": 1.0}}, [], False),
        pickle.BUILD,
        write_torch._value("kind", [], False),
        name("typing", "Any"),
        write_torch._value("best", [], False),
        pickle.dumps(np.float64(0.5), protocol=2)[2:-1],
        pickle.SETITEMS,
    )
    tree = read_torch.load(checkpoints.save_pickle(body, tmp_path / "x.pt"))
    assert tree["args"].state == {"encoder_layers": 24}
    assert type(tree["args"]) is not argparse.Namespace
    assert tree["cfg"].state == {"_content": {"lr": 1.0}}
    assert issubclass(tree["kind"], read_torch.Opaque)
    assert isinstance(tree["best"], read_torch.Opaque)


def test_a_file_of_python_2_and_pytorch_0_3(tmp_path):
    """OrderedDict from a list of pairs, byte strings for keys, `_rebuild_tensor`, a storage of the GPU's."""

    def value(thing):
        return write_torch._value(thing, [], True)

    text = pickle.SHORT_BINSTRING + b"\x08conv.\xff.w"  # a Python 2 string that is not UTF-8
    storage = [value("storage"), name("torch.cuda", "FloatStorage"), value("0"), value("cuda:0"), value(6), pickle.NONE]
    tensor = [name("torch._utils", "_rebuild_tensor"), pickle.MARK, pickle.MARK, *storage, pickle.TUPLE]
    tensor += [pickle.BINPERSID, value(0), value((2, 3)), value((3, 1)), pickle.TUPLE, pickle.REDUCE]
    pairs = [pickle.EMPTY_LIST, pickle.EMPTY_LIST, text, pickle.APPEND, *tensor, pickle.APPEND, pickle.APPEND]
    body = opcodes(name("collections", "OrderedDict"), pickle.MARK, *pairs, pickle.TUPLE, pickle.REDUCE)
    array = np.arange(6, dtype=np.float32)
    parts = [read_torch.LEGACY_MAGIC, read_torch.LEGACY_PROTOCOL, checkpoints.SYSTEM]
    with (tmp_path / "old.model").open("wb") as stream:
        for part in parts:
            pickle.dump(part, stream, protocol=2)
        stream.write(body)
        pickle.dump(["0"], stream, protocol=2)
        stream.write(len(array).to_bytes(8, "little") + array.tobytes())
    tree = read_torch.load(tmp_path / "old.model")
    assert list(tree) == ["conv.\ufffd.w"]
    np.testing.assert_array_equal(tree["conv.\ufffd.w"].numpy(), array.reshape(2, 3))


def test_only_the_check_knows_torch():
    """Conversion itself must run where torch is not installed."""
    for file in (pathlib.Path(read_torch.__file__).parent).glob("*.py"):
        tree = ast.parse(file.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        if file.name != "check.py":
            assert not {"torch", "transformers"} & {n.split(".")[0] for n in names}, file


@pytest.mark.parametrize("save", [checkpoints.save_zip, checkpoints.save_legacy])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.99])
def test_truncated_files_are_one_clear_error(tmp_path, save, kept):
    path = save(TREE, tmp_path / "cut.pth")
    path.write_bytes(path.read_bytes()[: max(1, int(path.stat().st_size * kept))])
    with pytest.raises(CheckpointError, match=r"cut\.pth: .*(truncated|damaged)"):
        read_torch.load(path)


def test_a_flipped_byte_is_found(tmp_path):
    path = checkpoints.save_zip({"a": np.zeros(1000, np.float32)}, tmp_path / "x.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.pt: damaged"):
        read_torch.load(path)["a"].numpy()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text file\n", "not a PyTorch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
        (pickle.dumps({"a": 1}, protocol=2), "not one that PyTorch wrote"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar archive"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"other\.pt: .*{message}"):
        read_torch.load(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"README.txt": b"hello"}, "a zip archive, but not one that PyTorch wrote"),
        ({"net/data.pkl": b"\x80\x02}.", "net/constants.pkl": b"\x80\x02)."}, "a TorchScript program"),
        ({"net/data.pkl": b"\x80\x02}.", "net/byteorder": b"big"}, "a big-endian machine"),
        ({"net/data.pkl": b"no pickle"}, "not a PyTorch checkpoint"),
    ],
)
def test_other_archives_are_named(tmp_path, members, message):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(CheckpointError, match=rf"other\.pt: .*{message}"):
        read_torch.load(tmp_path / "other.pt")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        read_torch.load(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="not a file"):
        read_torch.load(tmp_path)
