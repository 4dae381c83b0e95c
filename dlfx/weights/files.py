"""Files of named tensors: safetensors, read and written here, and PyTorch's own, read by PyTorch."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlfx.types import UserError

DTYPES = {
    **{"BOOL": np.dtype(np.bool_), "U8": np.dtype(np.uint8), "I8": np.dtype(np.int8)},
    **{"U16": np.dtype(np.uint16), "I16": np.dtype(np.int16), "U32": np.dtype(np.uint32), "I32": np.dtype(np.int32)},
    **{"U64": np.dtype(np.uint64), "I64": np.dtype(np.int64), "F64": np.dtype(np.float64)},
    **{"F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16), "F32": np.dtype(np.float32)},
    **{"F8_E4M3": np.dtype(jnp.float8_e4m3fn), "F8_E5M2": np.dtype(jnp.float8_e5m2)},
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts save a state dict
LENGTH = 8  # bytes of the header's length
LONGEST_HEADER = 100_000_000  # bytes; the limit of the reference implementation


def load_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name.

    Args:
      path: a file `.safetensors`, or `.pth`, `.pt` or `.bin` with a state dict, for which PyTorch has to be installed.

    Raises:
      UserError: for a file that is not there, of another kind, damaged, or that holds something other than tensors.
    """
    path = Path(path)
    readers = {".safetensors": load_safetensors, **dict.fromkeys((".pth", ".pt", ".bin"), load_torch)}
    if path.suffix not in readers:
        raise UserError(f"{path}: weights are read from files {', '.join(readers)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return readers[path.suffix](path)


def load_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name.

    Such a file is the length of its header (8 bytes, little-endian), the header (JSON: of each tensor its dtype, shape
    and the offsets of its bytes in what follows) and the elements, little-endian, in row-major order, without gaps.

    Raises:
      UserError: for a file that is not so.

    Source: the format's description, github.com/huggingface/safetensors.
    """

    def bad(reason: str) -> UserError:
        return UserError(f"{path} is no whole safetensors file: {reason}")

    try:
        size = Path(path).stat().st_size
        if size < LENGTH:
            raise bad(f"it has {size} bytes")
        content = np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    length = int.from_bytes(content[:LENGTH].tobytes(), "little")
    if length > min(size - LENGTH, LONGEST_HEADER):
        raise bad(f"its header would have {length} bytes, the file has {size}")
    try:
        header = json.loads(content[LENGTH : LENGTH + length].tobytes().decode())
    except (ValueError, RecursionError) as error:  # also of the decoding
        raise bad("its header is not JSON") from error
    if not isinstance(header, dict):
        raise bad("its header is not a JSON object")
    header.pop("__metadata__", None)

    data = content[LENGTH + length :]
    tensors: dict[str, np.ndarray] = {}
    spans = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(entry)
        if dtype is None or math.prod(shape) * dtype.itemsize != end - begin or end > len(data):
            raise bad(f"it says of {name} {json.dumps(entry)[:200]}, and has {len(data)} bytes of data")
        tensors[name] = np.array(data[begin:end]).view(dtype).reshape(shape)
        spans.append((begin, end))
    ends = [0, *(end for _, end in sorted(spans))]
    if [begin for begin, _ in sorted(spans)] != ends[:-1] or ends[-1] != len(data):
        raise bad("its tensors overlap, or leave bytes between or after them")
    return tensors


def save_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors by name, in that order, as a safetensors file.

    Raises:
      UserError: for a tensor of a type that the format does not have.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    begin = 0
    for name, array in arrays.items():
        if array.dtype not in NAMES:
            raise UserError(f"{name} is {array.dtype}; a safetensors file holds {', '.join(map(str, NAMES))}")
        end = begin + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the elements are aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(LENGTH, "little") + text)
        for array in arrays.values():
            file.write(array.tobytes())


def load_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that PyTorch saved, by name. Nothing but tensors is unpickled.

    It may lie in a dict with other things, under one of the keys of `WRAPPERS`.

    Raises:
      UserError: without PyTorch, or for a file that it cannot read, or that does not hold tensors by name.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch (pip install torch), or write it there as a .safetensors file"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: of the archive, of pickle, of what is not allowed
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"{path} holds no weights that PyTorch reads: {reason or type(error).__name__}") from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} does not hold a state dict, tensors by name, but {_summary(state)}")

    def array(name: str, tensor: Any) -> np.ndarray:
        try:
            if tensor.dtype == torch.bfloat16:  # NumPy has no such type, and PyTorch does not know of JAX's
                return tensor.contiguous().view(torch.int16).numpy().view(jnp.bfloat16)
            return tensor.numpy(force=True)
        except (TypeError, RuntimeError) as error:
            raise UserError(f"{path}: {name} is {tensor.dtype}, {tensor.layout}, not a plain array") from error

    return {name: array(name, tensor) for name, tensor in state.items()}


def _entry(entry: Any) -> tuple[np.dtype | None, list[int], int, int]:
    """The dtype, None if anything is wrong, shape and offsets of a tensor in the header."""
    nothing: tuple[None, list[int], int, int] = (None, [], 0, 0)
    if not isinstance(entry, dict):
        return nothing
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return nothing
    if not all(type(number) is int and number >= 0 for number in shape + offsets) or offsets[0] > offsets[1]:
        return nothing
    return DTYPES.get(dtype), shape, offsets[0], offsets[1]


def _summary(state: Any) -> str:
    if isinstance(state, Mapping):
        return f"a dict of {', '.join(list(map(str, state))[:5])}"
    return f"a {type(state).__name__}"
