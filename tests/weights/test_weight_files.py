"""Files of tensors: safetensors byte by byte, damaged files, and PyTorch's own."""

import json
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.types import UserError
from dlfx.weights.files import DTYPES, load_tensors, save_safetensors

ENTRY = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}


def file(path: Path, header: Any, data: bytes, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def same(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


def samples() -> dict[str, np.ndarray]:
    """Of every type, with all kinds of shapes."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3), (), (0, 3), (5,), (2, 1, 2, 2)]
    return {
        f"layer.{name}": np.asarray(rng.uniform(0, 7, shapes[i % len(shapes)])).astype(dtype)
        for i, (name, dtype) in enumerate(DTYPES.items())
    }


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "I16", "shape": [], "data_offsets": [12, 14]},  # in another order than its bytes
        "a.weight": {"dtype": "F32", "shape": [3, 1], "data_offsets": [0, 12]},
        "half": {"dtype": "BF16", "shape": [2], "data_offsets": [14, 18]},
    }
    data = struct.pack("<3f", 1.5, -2.0, 0.25) + struct.pack("<h", -3) + b"\x80\x3f\x00\xc0"
    found = load_tensors(file(tmp_path / "x.safetensors", header, data))
    same(found, {
        "b": np.array(-3, np.int16),
        "a.weight": np.array([[1.5], [-2.0], [0.25]], np.float32),
        "half": np.array([1, -2], jnp.bfloat16),
    })  # fmt: skip
    found["a.weight"][0] = 7  # an array of its own, not the file


def test_what_is_written_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_safetensors(path, {"w": transposed, "n": np.uint8(9)}, {"from": "a test"})
    text = (
        b'{"__metadata__":{"from":"a test"},"w":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},'
        b'"n":{"dtype":"U8","shape":[],"data_offsets":[24,25]}}'
    )
    text += b" " * (-len(text) % 8)
    assert path.read_bytes() == struct.pack("<Q", len(text)) + text + struct.pack("<6f", 0, 3, 1, 4, 2, 5) + b"\x09"
    same(load_tensors(path), {"w": np.ascontiguousarray(transposed), "n": np.array(9, np.uint8)})


def test_round_trips(tmp_path: Path) -> None:
    for tensors in (samples(), {}):
        save_safetensors(tmp_path / "x.safetensors", tensors)
        same(load_tensors(tmp_path / "x.safetensors"), tensors)
    with pytest.raises(UserError, match="^w is complex64; a safetensors file holds bool, uint8, "):
        save_safetensors(tmp_path / "x.safetensors", {"w": np.zeros(2, np.complex64)})


def test_the_reference_implementation_reads_and_writes_the_same(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    tensors = {name: value for name, value in samples().items() if hasattr(np, value.dtype.name)}
    assert len(tensors) == 12
    save_safetensors(path, tensors, {"format": "pt"})
    theirs = reference.load_file(path)
    same({name: theirs[name] for name in tensors}, tensors)
    reference.save_file(tensors, tmp_path / "y.safetensors", {"format": "pt"})
    ours = load_tensors(tmp_path / "y.safetensors")
    same({name: ours[name] for name in tensors}, tensors)


def test_the_reference_implementation_and_types_that_numpy_has_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("safetensors.torch")
    values = [0.5, -2.0, 3.0]
    kinds = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
    theirs = {name: torch.tensor(values).to(kind) for name, kind in kinds.items()}
    ours = {name: np.array(values, getattr(jnp, name)) for name in kinds}
    reference.save_file(theirs, tmp_path / "x.safetensors")
    found = load_tensors(tmp_path / "x.safetensors")
    same({name: found[name] for name in ours}, ours)
    save_safetensors(tmp_path / "y.safetensors", ours)
    for name, tensor in reference.load_file(tmp_path / "y.safetensors").items():
        assert tensor.dtype == kinds[name] and tensor.float().tolist() == values


@pytest.mark.parametrize(
    "header, data, reason",
    [
        (b"", b"", "its header is not JSON"),
        (b"{]", b"", "its header is not JSON"),
        (b'{"a": "\xff"}', b"", "its header is not JSON"),
        (b"[" * 100_000, b"", "its header is not JSON"),
        ([1], b"", "its header is not a JSON object"),
        ({"a": ENTRY}, b"1234567", "it says of a {.*}, and has 7 bytes of data"),
        ({"a": ENTRY}, b"123456789", "overlap, or leave bytes"),
        ({"a": ENTRY, "b": ENTRY}, b"12345678", "overlap, or leave bytes"),
        ({"a": ENTRY | {"data_offsets": [1, 9]}}, b"123456789", "overlap, or leave bytes"),
        ({"a": ENTRY | {"dtype": "F31"}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"dtype": ["F32"]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": [3]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": [-1, -2]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": [True, 2]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": [2.0]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": 2}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"data_offsets": [0, 4, 8]}}, b"12345678", "it says of a"),
        ({"a": ENTRY | {"shape": [10**30]}}, b"12345678", "it says of a"),
        ({"a": [ENTRY]}, b"12345678", "it says of a"),
        ({"a": {}}, b"12345678", "it says of a"),
    ],
)
def test_bad_headers(tmp_path: Path, header: Any, data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=f"^.*x.safetensors is no whole safetensors file: .*{reason}") as error:
        load_tensors(file(tmp_path / "x.safetensors", header, data))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("length", [2**64 - 1, 10**9, 1000])
def test_lengths_beyond_the_file(tmp_path: Path, length: int) -> None:
    with pytest.raises(UserError, match=f"its header would have {length} bytes, the file has"):
        load_tensors(file(tmp_path / "x.safetensors", {}, b"", length))


def test_no_damage_goes_unexplained(tmp_path: Path) -> None:
    """A file cut anywhere is refused, and one with any byte changed is refused or read, with no other error."""
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"w": np.ones((2, 1), np.float32), "b": np.ones(3, np.int8)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="is no whole safetensors file"):
            load_tensors(path)
    refused = 0
    for i in range(len(whole)):
        for flip in (1, 16, 128):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
            try:
                load_tensors(path)
            except UserError:
                refused += 1
    assert refused > len(whole)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^there is no file .*nowhere.pth$"):
        load_tensors(tmp_path / "nowhere.pth")
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UserError, match="^there is no file .*x.safetensors$"):
        load_tensors(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="x.npz: weights are read from files .safetensors, .pth, .pt, .bin$"):
        load_tensors(tmp_path / "x.npz")


def test_without_pytorch_its_files_are_refused_kindly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"x.pth needs PyTorch \(pip install torch\)"):
        load_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("name, zipped", [("x.pth", True), ("x.pt", False)])
def test_a_state_dict_of_pytorch(tmp_path: Path, name: str, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    state = module.state_dict() | {
        "half": torch.tensor([1.5, -2.0]).bfloat16(),
        "scalar": torch.tensor(2.0).bfloat16(),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    same(load_tensors(tmp_path / name), {
        "0.weight": state["0.weight"].numpy(), "0.bias": state["0.bias"].numpy(),
        "1.weight": np.ones(3, np.float32), "1.bias": np.zeros(3, np.float32),
        "1.running_mean": np.zeros(3, np.float32), "1.running_var": np.ones(3, np.float32),
        "1.num_batches_tracked": np.array(0), "half": np.array([1.5, -2], jnp.bfloat16),
        "scalar": np.array(2, jnp.bfloat16), "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T.copy(),
        "parameter": np.ones(2, np.float32),
    })  # fmt: skip


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_among_other_things(tmp_path: Path, key: str) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"epoch": 3, key: {"w": torch.ones(2)}, "optimizer": {"lr": 0.1}}, tmp_path / "x.bin")
    same(load_tensors(tmp_path / "x.bin"), {"w": np.ones(2, np.float32)})


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_other_files_of_pytorch_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(100)}, path)
    for damaged in (b"", b"nonsense", path.read_bytes()[:-200], path.read_bytes()[:50]):
        (tmp_path / "bad.pth").write_bytes(damaged)
        with pytest.raises(UserError, match="bad.pth holds no weights that PyTorch reads: .") as error:
            load_tensors(tmp_path / "bad.pth")
        assert "\n" not in str(error.value)
    for trap in ({"w": Trap()}, {"state_dict": {"w": torch.ones(1)}, "args": Trap()}):  # none of it ever runs
        for name in ("trap.pth", "trap.pt", "trap.bin"):
            torch.save(trap, tmp_path / name)
            with pytest.raises(UserError, match=f"{name} holds no weights that PyTorch reads: .*"):
                load_tensors(tmp_path / name)
            (tmp_path / name).write_bytes(pickle.dumps(trap["w"] if "w" in trap else trap["args"]))
            with pytest.raises(UserError, match=f"{name} holds no weights that PyTorch reads: .*"):
                load_tensors(tmp_path / name)
    for state, said in (
        ({"weights": {"w": torch.ones(1)}, "epoch": 3}, "a dict of weights, epoch"),
        ([1], "a list"),
    ):
        torch.save(state, path)
        with pytest.raises(UserError, match=f"does not hold a state dict, tensors by name, but {said}$"):
            load_tensors(path)
    torch.save({"w": torch.eye(2).to_sparse()}, path)
    with pytest.raises(UserError, match="w is torch.float32, torch.sparse_coo, not a plain array"):
        load_tensors(path)
