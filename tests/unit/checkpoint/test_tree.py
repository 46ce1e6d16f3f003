"""Trees of state: an exact round trip, nothing but data, and errors that name the place."""

from __future__ import annotations

import enum
import json
import math
import os
import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from surestep.checkpoint.tree import check_tree, read_tree, tree_exists, write_tree
from surestep.errors import CheckpointError

DTYPES = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
STORABLE_DTYPES = [
    dtype
    for dtype in dict.fromkeys(DTYPES)
    # Quantized dtypes need a quantizer; those of less than a byte are names without operations so far.
    if not re.search(r"\.qu?int|\.bits|\.u?int[1-7]$", str(dtype))
]


def round_trip(folder: Path, tree: object) -> Any:
    write_tree(folder, "state", tree)
    return read_tree(folder, "state")


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(flat.untyped_storage())[flat.storage_offset() * flat.element_size() :][
        : flat.numel() * flat.element_size()
    ]


def assert_same(found: object, expected: object) -> None:
    """Compare types as well as values, and values to the last bit."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert bits(found) == bits(expected)
        assert found.requires_grad == expected.requires_grad
    elif isinstance(expected, np.ndarray | np.generic):
        assert (found.dtype.str, found.shape) == (expected.dtype.str, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
        for left, right in zip(found, expected, strict=True):
            assert type(left) is type(right)
    elif isinstance(expected, list | tuple | deque):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right)
    elif isinstance(expected, float | complex):
        assert struct.pack(">dd", found.real, found.imag) == struct.pack(">dd", expected.real, expected.imag)
    else:
        assert found == expected


def nan_with_payload(payload: int) -> float:
    return struct.unpack(">d", (0x7FF8_0000_0000_0000 | payload).to_bytes(8, "big"))[0]


PLAIN = [
    None,
    True,
    0,
    -1,
    2**63,
    -(2**64) + 1,
    10**6000,
    -(3**9000),
    0.1,
    -0.0,
    5e-324,
    1e22,
    math.inf,
    -math.inf,
    math.nan,
    nan_with_payload(0x1234),
    complex(1, -0.0),
    complex(math.nan, math.inf),
    "",
    "grüße, 世界 🙂 \x00 \n",
    "lone \ud83d then \ude00",
    b"",
    bytes(range(256)),
    [],
    (),
    {},
    set(),
    frozenset(),
    [1, (2, [3, (4,)])],
    {1, 2, 3},
    frozenset({"a", ("b", 1)}),
    {"$": 1},
    {"$": "tuple", "items": []},
    {"a": {"$": "tensor", "key": "a"}},
    {1: "a", "1": "b", (1, 2): "c", None: "d", 1.5: "e"},
    {True: 1, 2: 2},
    {"\ud800": 1},
    OrderedDict([("b", 1), ("a", [2])]),
    Counter({5: 2, "a": 1}),
    deque([1, 2], maxlen=3),
    deque(),
    torch.float32,
    torch.bfloat16,
    torch.Size([2, 3]),
    torch.Size([]),
    np.float32(1.1),
    np.float64(math.nan),
    np.int64(-5),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.str_("text"),
    np.complex64(1 + 2j),
    np.datetime64("2024-02-29T12:00"),
    np.zeros((0, 3)),
    np.array(3.5),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::3],
    np.array(["a", "bcd"]),
    np.array([b"x", b"yz"]),
    np.array([1, 2], dtype="m8[s]"),
    np.array([1.0, np.nan], dtype=np.float16),
    np.arange(3, dtype=np.longdouble),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}")
def test_a_value_comes_back_with_its_type_and_bits(tmp_path: Path, value: object) -> None:
    assert_same(round_trip(tmp_path, {"in": [value]})["in"][0], value)
    assert_same(round_trip(tmp_path, value), value)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", STORABLE_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)], ids=str)
def test_a_tensor_of_any_dtype_and_shape_comes_back(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    size = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(size)
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), dtype=torch.uint8, generator=generator)
    tensor = torch.empty(shape, dtype=dtype)
    torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage(), 0, (size,), (1,)).copy_(raw)
    assert_same(round_trip(tmp_path, [tensor])[0], tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2),
        torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
        torch.arange(24.0).reshape(4, 6)[:, ::2],
        torch.arange(24.0)[5:9],
        torch.tensor([1.0, 2.0]).expand(3, 2),
        torch.tensor(7.0).expand(4),
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
        torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
        torch.arange(6).to(torch.complex128).reshape(2, 3).t(),
        torch.ones(2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)}-{tensor.stride()}",
)
def test_a_tensor_of_any_strides_comes_back(tmp_path: Path, tensor: torch.Tensor) -> None:
    found = round_trip(tmp_path, {"a": {"b": tensor}})["a"]["b"]
    assert_same(found, tensor)


def test_the_order_of_dimensions_in_memory_is_kept(tmp_path: Path) -> None:
    tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    found = round_trip(tmp_path, tensor)
    assert found.stride() == tensor.stride()
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_tensors_that_share_memory_share_it_again_and_are_stored_once(tmp_path: Path) -> None:
    base = torch.arange(1000, dtype=torch.float32)
    tree = {
        "whole": base,
        "again": base,
        "part": base[10:20],
        "matrix": base.view(10, 100).t(),
        "words": base.view(torch.int32),
        "bytes": base[1:3].view(torch.uint8),
    }
    found = round_trip(tmp_path, tree)
    assert (tmp_path / "state.safetensors").stat().st_size < 5000
    assert_same(found, tree)
    found["whole"][15] = -1
    assert found["again"][15] == found["part"][5] == found["matrix"][15, 0] == -1
    assert found["words"][15] == base.new_tensor([-1.0]).view(torch.int32)[0]


def test_equal_views_are_stored_once_under_an_ordinary_name(tmp_path: Path) -> None:
    shared = torch.rand(3, 4)
    found = round_trip(tmp_path, {"a": shared, "b": [shared]})
    stored = load_file(tmp_path / "state.safetensors")
    assert list(stored) == ["a"]
    assert torch.equal(stored["a"], shared)
    found["a"].zero_()
    assert torch.equal(found["b"][0], torch.zeros(3, 4))


def test_views_that_begin_late_in_a_large_memory_store_only_what_they_reach(tmp_path: Path) -> None:
    large = torch.arange(10_000, dtype=torch.float64)
    tree = [large[5000:5004], large[5002:5007], large[9000:9001], large[0:0]]
    assert_same(round_trip(tmp_path, tree), tree)
    assert (tmp_path / "state.safetensors").stat().st_size < 1000


def test_views_of_several_dtypes_may_begin_anywhere(tmp_path: Path) -> None:
    base = torch.arange(40, dtype=torch.float32)
    tree = [
        base[9:15],
        base[10:14].view(torch.float64),
        base[10:14].view(torch.complex64),
        base[11:12].view(torch.int8)[1:],
    ]
    assert_same(round_trip(tmp_path, tree), tree)


@pytest.mark.parametrize("name", ["conj", "neg"])
def test_lazy_views_of_shared_memory_keep_their_meaning(tmp_path: Path, name: str) -> None:
    base = torch.tensor([1 + 2j, 3 - 1j])
    view = base.conj() if name == "conj" else base.conj().imag
    tree = {"base": base, "view": view}
    found = round_trip(tmp_path, tree)
    assert_same(found, tree)
    found["base"][0] = 5 + 7j
    assert found["view"][0] == (5 - 7j if name == "conj" else -7)


def test_what_is_read_is_independent_of_the_files_and_of_the_tree(tmp_path: Path) -> None:
    tensor, array = torch.rand(100), np.arange(5)
    found = round_trip(tmp_path, (tensor, array))
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    tensor.zero_()
    assert found[0].sum() > 0
    found[1][0] = 7


def test_tensors_carry_the_name_of_their_place(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        "optimizer",
        {"state": {"w": {"exp_avg": torch.ones(2)}}, "__metadata__": torch.ones(1), "ü": torch.ones(1)},
    )
    assert set(load_file(tmp_path / "optimizer.safetensors")) == {"state/w/exp_avg", "__metadata__#2", "\\xfc"}


def test_places_that_read_alike_stay_apart(tmp_path: Path) -> None:
    tree = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}, 1: torch.tensor(3), "1": torch.tensor(4)}
    assert_same(round_trip(tmp_path, tree), tree)


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


class Named(enum.StrEnum):
    A = "a"


Point = namedtuple("Point", "x y")


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Colour.RED, "Colour"),
        (Named.A, "Named"),
        (Text("a"), "Text"),
        (Point(1, 2), "Point"),
        (defaultdict(list), "defaultdict"),
        (object(), "builtins.object"),
        (lambda: None, "function"),
        (Path("a"), "PosixPath"),
        (bytearray(b"a"), "bytearray"),
        (range(3), "range"),
        (int, "type"),
        (torch.device("cpu"), "device"),
        (torch.Generator(), "Generator"),
        (torch.ones(2).as_subclass(Subclass), "Subclass"),
        (np.array([object()]), "ndarray"),
        (np.zeros(2, dtype=[("a", "i4")]), "ndarray"),
        (np.ma.masked_array([1, 2]), "MaskedArray"),
        (np.void(b"ab"), "void"),
        (torch.ones(2).to_sparse(), "layout torch.sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
    ],
)
def test_what_is_no_data_is_refused_with_its_place_and_type(tmp_path: Path, value: object, kind: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^state/a/1/c .*{kind}"):
        write_tree(tmp_path / "new", "state", {"a": [0, {"c": value}]})
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match=kind):
        check_tree({"a": (value,)}, "state")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantized_tensor_is_refused() -> None:
    with pytest.raises(CheckpointError, match="qint8"):
        check_tree([torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)], "state")


def test_a_key_that_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state/key .*Colour"):
        write_tree(tmp_path, "state", {Colour.RED: 1})


def test_a_container_within_itself_is_refused() -> None:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    with pytest.raises(CheckpointError, match=r"state/1/again contains itself"):
        check_tree(cycle, "state")
    twice = [1]
    check_tree([twice, twice], "state")


def test_nesting_without_measure_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CheckpointError, match="too deeply"):
        check_tree(deep, "state")
    (tmp_path / "state.json").write_text('{"format": "surestep.tree", "version": 1, "tree": ' + "[" * 100_000)
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        read_tree(tmp_path, "state")


def test_a_tree_without_tensors_leaves_no_file_of_older_ones(tmp_path: Path) -> None:
    assert not tree_exists(tmp_path, "state")
    assert {path.name for path in write_tree(tmp_path, "state", [torch.ones(1)])} == {"state.json", "state.safetensors"}
    assert {path.name for path in write_tree(tmp_path, "state", [1])} == {"state.json"}
    assert tree_exists(tmp_path, "state")
    assert not (tmp_path / "state.safetensors").exists()


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tree(tmp_path, name, {"names": {f"name{i}" for i in range(50)}, "t": torch.ones(3)})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_permissions_follow_the_mask_of_the_user(tmp_path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in write_tree(tmp_path, "state", [torch.ones(1)]):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_file_cut_anywhere_is_named(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, "state", {"a": torch.arange(4), "b": [1, 2.5, "x"]})
    content = (tmp_path / name).read_bytes()
    for length in range(len(content)):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=rf"{name}"):
            read_tree(tmp_path, "state")
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"state\.(json|safetensors)"):
        read_tree(tmp_path, "state")


TENSOR = {"$": "tensor", "key": "t"}
VIEW = {
    "$": "view",
    "key": "t",
    "dtype": "uint8",
    "shape": [1],
    "stride": [1],
    "offset": 0,
    "conj": False,
    "neg": False,
}
ARRAY = {"$": "array", "key": "t", "dtype": "|u1", "shape": [4], "order": "C"}


@pytest.mark.parametrize(
    "tree",
    [
        {"$": "unknown", "value": 1},
        {"$": ["list"], "value": 1},
        {"$": None},
        {"$": "tuple"},
        {"$": "tuple", "items": 5},
        {"$": "set", "items": [[1]]},
        {"$": "dict", "items": [1]},
        {"$": "int", "value": "zz"},
        {"$": "float", "value": "00"},
        {"$": "bytes", "value": "*"},
        {"$": "text", "value": "_w=="},
        {"$": "dtype", "value": "nn"},
        {"$": "dtype", "value": "load"},
        {"$": "dtype", "value": "nothing"},
        {"$": "numpy_scalar", "value": ["|O", "0000000000000000"]},
        {"$": "deque", "items": []},
        {"$": "size", "value": ["a"]},
        TENSOR | {"key": "missing"},
        TENSOR | {"dtype": "float64", "shape": [1]},
        TENSOR | {"order": [0, 1, 2]},
        TENSOR | {"order": [0, 0]},
        TENSOR | {"requires_grad": True},
        ARRAY | {"dtype": "|O"},
        ARRAY | {"shape": [3]},
        VIEW | {"offset": 10_000},
        VIEW | {"shape": [1 << 60]},
        VIEW | {"stride": [-1], "shape": [2]},
        VIEW | {"dtype": "float64"},
    ],
    ids=json.dumps,
)
def test_a_document_that_does_not_fit_is_named(tmp_path: Path, tree: object) -> None:
    write_tree(tmp_path, "state", {"t": torch.arange(4, dtype=torch.uint8)})
    document = {"format": "surestep.tree", "version": 1, "tree": [tree]}
    (tmp_path / "state.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"state\.(json|safetensors) is damaged"):
        read_tree(tmp_path, "state")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not hold state"),
        ('{"format": "other"}', "not hold state"),
        ('{"format": "surestep.tree", "version": 2, "tree": 1}', "version 2"),
        ('{"format": "surestep.tree", "version": 1, "tree": NaN}', "NaN"),
        ("1" * 5000, "damaged"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_tree(tmp_path, "state")


def test_a_pickle_under_the_name_of_a_tree_is_not_executed(tmp_path: Path) -> None:
    # A pickle that would create a file: os.system in protocol 0, written by hand.
    marker = tmp_path / "executed"
    payload = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    for name in ("state.json", "state.safetensors"):
        write_tree(tmp_path, "state", [torch.ones(1)])
        (tmp_path / name).write_bytes(payload)
        with pytest.raises(CheckpointError, match=name):
            read_tree(tmp_path, "state")
        torch.save({"a": torch.ones(1)}, tmp_path / name)
        with pytest.raises(CheckpointError, match=name):
            read_tree(tmp_path, "state")
    assert not marker.exists()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(st.characters())
    | st.binary()
    | st.lists(st.floats(width=32), max_size=4).map(torch.tensor)
)
KEYS = st.none() | st.booleans() | st.integers() | st.text(st.characters()) | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=150, derandomize=True)
@given(TREES)
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    assert_same(round_trip(tmp_path_factory.mktemp("tree"), tree), tree)
