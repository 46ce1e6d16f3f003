"""The state of optimizers on several devices, and of those that are none of torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surestep.checkpoint.optimizer_state import decode_optimizer, encode_optimizer


def new(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Meta(torch.optim.SGD):
    """Keeps one part of its state beside the parameter and one on the host."""

    def fill(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] |= {
                "beside": torch.zeros_like(parameter),
                "step": torch.zeros((), device=parameter.device),
                "host": torch.zeros(2),
                "number": 1,
            }


def test_what_was_on_the_host_returns_there_and_what_was_not_does_not() -> None:
    # The meta device stands for an accelerator.
    parameter = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer, second = Meta([parameter], lr=0.1), Meta([parameter], lr=0.1)
    optimizer.fill()
    tree = encode_optimizer(optimizer, {id(parameter): "w"})
    assert tree["on_host"] == {"w": ["host"]}
    tree["state"]["w"] |= {"step": torch.zeros(()), "beside": torch.zeros(2)}
    decode_optimizer(second, {id(parameter): "w"}, tree)
    found = second.state[parameter]
    assert {key: value.device.type for key, value in found.items() if key != "number"} == {
        "beside": "meta",
        "step": "meta",
        "host": "cpu",
    }
    # Without the knowledge of where things were, torch decides: all beside the parameter but the step.
    third = Meta([parameter], lr=0.1)
    decode_optimizer(third, {id(parameter): "w"}, tree | {"on_host": {}})
    assert third.state[parameter]["step"].device.type == "cpu"
    assert third.state[parameter]["host"].device.type == "meta"


def test_a_rate_that_is_a_tensor_goes_where_the_optimizer_has_it() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    tree = encode_optimizer(torch.optim.Adam([parameter], lr=torch.tensor(0.25), foreach=False), {})
    second = torch.optim.Adam([parameter], lr=torch.tensor(0.5), foreach=False)
    second.param_groups[0]["lr"] = torch.tensor(0.5, device="meta")
    decode_optimizer(second, {}, tree)
    assert second.param_groups[0]["lr"].device.type == "meta"


class Duck:
    """Has the methods of an optimizer and nothing else of torch's."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": [parameter], "lr": 0.1}]
        self.state: dict[int, dict[str, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(self.state), "param_groups": [{"params": [0], "lr": self.param_groups[0]["lr"]}]}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.state = content["state"]
        self.param_groups[0]["lr"] = content["param_groups"][0]["lr"]


def test_an_optimizer_of_another_kind_is_stored_by_its_methods() -> None:
    parameter = new(2)
    optimizer, second = Duck(parameter), Duck(parameter)
    optimizer.state[0], optimizer.param_groups[0]["lr"] = {"count": 3}, 0.5
    tree = encode_optimizer(optimizer, {id(parameter): "w"})  # type: ignore[arg-type]
    assert tree["state"] == {"w": {"count": 3}}
    decode_optimizer(second, {id(parameter): "w"}, tree)  # type: ignore[arg-type]
    assert (second.state, second.param_groups[0]["lr"]) == ({0: {"count": 3}}, 0.5)
