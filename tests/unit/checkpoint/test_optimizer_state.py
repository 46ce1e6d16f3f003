"""Optimizer state by name: an optimizer that was stored goes on as if it had never been."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from surestep.checkpoint.names import parameter_names
from surestep.checkpoint.optimizer_state import decode_optimizer, encode_optimizer
from surestep.checkpoint.tree import read_tree, write_tree
from surestep.errors import CheckpointError

Make = Callable[[list[nn.Parameter]], Optimizer]


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(4, 6, dtype=dtype)
        self.norm = nn.LayerNorm(6, dtype=dtype)
        self.second = nn.Linear(6, 3, dtype=dtype)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.norm(self.first(inputs))))


class Scalars(Optimizer):
    """A user's optimizer that keeps whatever it likes in its state."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "table": [1, (2.5, None)], "name": "scalars"})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {
                        "count": 0,
                        "label": "warm",
                        "losses": [],
                        "norms": deque(maxlen=3),
                        "pair": (torch.zeros_like(parameter, dtype=torch.float32), "text"),
                        "nested": {"sum": torch.zeros(parameter.shape, dtype=torch.float64)},
                        "mask": torch.zeros(parameter.shape, dtype=torch.bool),
                        "array": np.zeros(2),
                        "number": np.float32(0),
                        "kinds": {"a", "b"},
                        "ordered": OrderedDict(x=1),
                        "blob": b"ab",
                        "size": parameter.shape,
                        "nothing": None,
                    }
                gradient = parameter.grad.float()
                state["count"] += 1
                state["label"] = f"step {state['count']}"
                state["losses"].append(float(gradient.abs().sum()))
                state["norms"].append(gradient.norm())
                state["pair"][0].mul_(0.9).add_(gradient)
                state["nested"]["sum"] += gradient.double()
                state["mask"] = state["mask"] | (gradient > 0)
                state["array"] = state["array"] + state["count"]
                state["number"] = np.float32(state["number"] + 0.1)
                assert state["label"].startswith("step ")
                assert state["pair"][1] == "text"
                scale = float(state["nested"]["sum"].mean()) + sum(state["losses"]) + float(sum(state["norms"]))
                scale += float(state["array"].sum()) + float(state["number"])
                parameter.sub_((group["lr"] * state["pair"][0] * (1 + 1e-3 * scale)).to(parameter.dtype))
        return loss


class WideState(Optimizer):
    """Keeps float32 state for parameters of any dtype, as optimizers with master weights do."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    master = state.setdefault("master", parameter.float().clone())
                    master.sub_(group["lr"] * parameter.grad.float())
                    parameter.copy_(master)
        return None


class Hooked(torch.optim.SGD):
    """Renames a part of its state when it is saved and back when it is loaded, and keeps a counter beside the state."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.05, momentum=0.9)
        self.seen = 0
        self.register_state_dict_post_hook(self._rename)
        self.register_load_state_dict_pre_hook(self._rename_back)
        self.register_load_state_dict_post_hook(lambda optimizer: None)

    def step(self, closure: Any = None) -> Any:
        self.seen += 1
        for group in self.param_groups:
            group["lr"] = 0.05 / (1 + self.seen)
        return super().step(closure)

    def _rename(self, _: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
        state = {
            key: {f"saved_{name}": item for name, item in value.items()} for key, value in content["state"].items()
        }
        return content | {"state": state, "seen": self.seen}

    def _rename_back(self, _: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
        self.seen = content["seen"]
        state = {
            key: {name.removeprefix("saved_"): item for name, item in value.items()}
            for key, value in content["state"].items()
        }
        return {"state": state, "param_groups": content["param_groups"]}


class Wrapper(Optimizer):
    """An optimizer around another one, without a state of its own."""

    def __init__(self, inner: Optimizer) -> None:
        self.optimizer = inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class Foreign(torch.optim.SGD):
    """Has a state dict of its own layout."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.05, momentum=0.9)

    def state_dict(self) -> dict[str, Any]:
        buffers = [
            self.state[parameter].get("momentum_buffer") for group in self.param_groups for parameter in group["params"]
        ]
        return {"buffers": buffers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, buffer in zip(parameters, state_dict["buffers"], strict=True):
            if buffer is not None:
                self.state[parameter]["momentum_buffer"] = buffer


OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adamw tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95)),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05, t0=2),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "lbfgs search": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"),
    "muon": lambda p: torch.optim.Muon([parameter for parameter in p if parameter.dim() == 2], lr=0.01),
    "scalars": Scalars,
    "wide state": WideState,
    "hooked": Hooked,
    "wrapper": lambda p: Wrapper(torch.optim.AdamW(p, lr=0.01)),
    "foreign": Foreign,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def train(model: Model, optimizer: Optimizer, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        dtype = model.first.weight.dtype
        inputs = torch.randn(8, 4, generator=generator).to(dtype)
        targets = torch.randn(8, 3, generator=generator).to(dtype)

        def closure(inputs: torch.Tensor = inputs, targets: torch.Tensor = targets) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            return loss.detach()

        if isinstance(optimizer, torch.optim.LBFGS):
            losses.append(float(optimizer.step(closure)))
        else:
            losses.append(float(closure()))
            optimizer.step()
    return losses


def flat(value: Any) -> Any:
    """Return nested state with tensors as what distinguishes them."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), str(value.device), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, [(str(key), flat(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, getattr(value, "maxlen", None), [flat(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, str(value.dtype), value.tolist()
    return type(value).__name__, value


def states(model: Model, optimizer: Optimizer) -> Any:
    inner = getattr(optimizer, "optimizer", optimizer)
    return {name: flat(dict(inner.state.get(parameter, {}))) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("saved_after", [0, 5])
def test_a_stored_optimizer_goes_on_as_if_it_had_not_been(
    tmp_path: Path, kind: str, dtype: str, saved_after: int
) -> None:
    make = OPTIMIZERS[kind]
    model = Model(DTYPES[dtype])
    optimizer = make(list(model.parameters()))
    losses = train(model, optimizer, 0, saved_after)
    write_tree(tmp_path, "optimizer", encode_optimizer(optimizer, parameter_names(model)))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    losses += train(model, optimizer, saved_after, 10)

    resumed = Model(DTYPES[dtype])
    resumed.load_state_dict(weights)
    second = make(list(resumed.parameters()))
    decode_optimizer(second, parameter_names(resumed), read_tree(tmp_path, "optimizer"))
    again = train(resumed, second, saved_after, 10)

    assert again == losses[saved_after:]
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert states(resumed, second) == states(model, optimizer)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in second.param_groups]
    assert flat(groups) == flat(
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    )


def test_the_state_has_the_dtype_that_it_had_and_not_the_parameters() -> None:
    # The reason for loading exactly: torch alone makes this state bfloat16.
    model = Model(torch.bfloat16)
    optimizer = WideState(model.parameters())
    train(model, optimizer, 0, 2)
    alone = WideState(model.parameters())
    alone.load_state_dict(optimizer.state_dict())
    assert next(iter(alone.state.values()))["master"].dtype is torch.bfloat16
    exact = WideState(model.parameters())
    decode_optimizer(exact, parameter_names(model), encode_optimizer(optimizer, parameter_names(model)))
    assert all(state["master"].dtype is torch.float32 for state in exact.state.values())


def grouped(model: Model, order: list[list[str]], **rates: float) -> Optimizer:
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in names],
            "lr": 0.01 * (1 + len(names)),
            "weight_decay": 0.1 * len(names),
        }
        for names in order
    ]
    return torch.optim.AdamW(groups)


ORDER = [["first.weight", "second.weight"], ["first.bias", "norm.weight", "norm.bias"], ["second.bias"]]
REORDERED = [["second.bias"], ["norm.bias", "first.bias", "norm.weight"], ["second.weight", "first.weight"]]


def test_groups_and_parameters_may_come_in_another_order(tmp_path: Path) -> None:
    model = Model()
    optimizer = grouped(model, ORDER)
    train(model, optimizer, 0, 5)
    optimizer.param_groups[0]["lr"] = 0.005
    write_tree(tmp_path, "optimizer", encode_optimizer(optimizer, parameter_names(model)))
    resumed = Model()
    resumed.load_state_dict(model.state_dict())
    second = grouped(resumed, REORDERED)
    decode_optimizer(second, parameter_names(resumed), read_tree(tmp_path, "optimizer"))
    assert [group["lr"] for group in second.param_groups] == [
        optimizer.param_groups[place]["lr"] for place in (2, 1, 0)
    ]
    assert second.param_groups[2]["lr"] == 0.005
    assert states(resumed, second) == states(model, optimizer)
    assert train(resumed, second, 5, 10) == train(model, optimizer, 5, 10)


def test_groups_without_parameters_are_kept() -> None:
    model = Model()
    order = [[], ["first.weight"], []]
    optimizer, second = grouped(model, order), grouped(model, order)
    optimizer.param_groups[0]["lr"], optimizer.param_groups[2]["lr"] = 1.0, 3.0
    decode_optimizer(second, parameter_names(model), encode_optimizer(optimizer, parameter_names(model)))
    assert [group["lr"] for group in second.param_groups] == [1.0, 0.02, 3.0]


def test_names_that_the_optimizer_keeps_itself_stay_its_own() -> None:
    model = Model()
    optimizer = torch.optim.AdamW(list(model.named_parameters()))
    train(model, optimizer, 0, 2)
    tree = encode_optimizer(optimizer, parameter_names(model))
    assert "param_names" not in tree["groups"][0]
    second = torch.optim.AdamW(list(reversed(list(model.named_parameters()))))
    expected = second.param_groups[0]["param_names"]
    decode_optimizer(second, parameter_names(model), tree)
    assert second.param_groups[0]["param_names"] == expected
    assert states(model, second) == states(model, optimizer)


def test_parameters_without_names_are_called_by_their_place(tmp_path: Path) -> None:
    model = Model()
    optimizer = grouped(model, ORDER)
    train(model, optimizer, 0, 3)
    names = {key: name for key, name in parameter_names(model).items() if name.startswith("first")}
    tree = encode_optimizer(optimizer, names)
    assert set(tree["state"]) == {"first.weight", "group0.1", "first.bias", "group1.1", "group1.2", "group2.0"}
    second = grouped(model, ORDER)
    decode_optimizer(second, names, tree)
    assert states(model, second) == states(model, optimizer)


def test_two_parameters_of_one_name_are_refused() -> None:
    model = Model()
    names = dict.fromkeys(parameter_names(model), "weight")
    with pytest.raises(CheckpointError, match="'weight'"):
        encode_optimizer(grouped(model, ORDER), names)


def small(**parameters: nn.Parameter) -> tuple[Optimizer, dict[int, str]]:
    names = {id(parameter): name for name, parameter in parameters.items()}
    return torch.optim.SGD(list(parameters.values()), lr=0.1, momentum=0.9), names


def new(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ({"a.weight": new(2)}, r"The optimizer has no 'b.weight'"),
        ({"a.weight": new(2), "b.weight": new(3), "c": new(1)}, r"It lacks 'c'"),
        ({"a.weight": new(2), "b.weigth": new(3)}, r"It lacks 'b.weigth' \(nearest: 'b.weight'\)"),
        ({"a.weight": new(2), "b.weight": new(4)}, r"b.weight \(saved \(3,\), now \(4,\)\)"),
    ],
)
def test_other_parameters_are_named(live: dict[str, nn.Parameter], message: str) -> None:
    tree = encode_optimizer(*small(**{"a.weight": new(2), "b.weight": new(3)}))
    with pytest.raises(CheckpointError, match=message):
        decode_optimizer(*small(**live), tree)


def test_other_groups_are_named() -> None:
    model = Model()
    tree = encode_optimizer(grouped(model, ORDER), parameter_names(model))
    moved = [["first.weight"], [*ORDER[1], "second.weight"], ORDER[2]]
    with pytest.raises(CheckpointError, match=r"group 0 \('first.weight'\) is not one of the saved groups"):
        decode_optimizer(grouped(model, moved), parameter_names(model), tree)
    with pytest.raises(CheckpointError, match="more groups"):
        decode_optimizer(
            grouped(model, [*ORDER]), parameter_names(model), tree | {"groups": [*tree["groups"], {"params": []}]}
        )


def test_another_optimizer_is_named() -> None:
    model = Model()
    tree = encode_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), parameter_names(model))
    with pytest.raises(CheckpointError, match="state of SGD, and this run uses AdamW"):
        decode_optimizer(torch.optim.AdamW(model.parameters()), parameter_names(model), tree)


@pytest.mark.parametrize("lost", ["parameters", "groups", "state", "other_state", "extra"])
def test_an_incomplete_tree_is_refused(lost: str) -> None:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tree = encode_optimizer(optimizer, parameter_names(model))
    del tree[lost]
    with pytest.raises(CheckpointError, match="incomplete"):
        decode_optimizer(optimizer, parameter_names(model), tree)


def test_a_state_that_the_optimizer_does_not_take_is_told() -> None:
    optimizer = torch.optim.SGD([new(2)], lr=0.1)
    optimizer.register_load_state_dict_pre_hook(lambda _, content: content["nothing"])
    with pytest.raises(CheckpointError, match="KeyError: 'nothing'"):
        decode_optimizer(optimizer, {}, encode_optimizer(optimizer, {}))
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 0


def test_state_of_no_parameter_is_kept(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([new(2)], lr=0.1)
    optimizer.state["global"] = {"count": 3, "label": "a text"}  # type: ignore[index]
    write_tree(tmp_path, "optimizer", encode_optimizer(optimizer, {}))
    second = torch.optim.SGD([new(2)], lr=0.1)
    decode_optimizer(second, {}, read_tree(tmp_path, "optimizer"))
    assert second.state["global"] == {"count": 3, "label": "a text"}  # type: ignore[index]


def test_loading_twice_is_as_loading_once(tmp_path: Path) -> None:
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, 0, 3)
    write_tree(tmp_path, "optimizer", encode_optimizer(optimizer, parameter_names(model)))
    expected = states(model, optimizer)
    for _ in range(2):
        decode_optimizer(optimizer, parameter_names(model), read_tree(tmp_path, "optimizer"))
        assert states(model, optimizer) == expected
    assert not optimizer._optimizer_load_state_dict_pre_hooks
