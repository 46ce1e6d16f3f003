"""GrokAdamW, made to resume."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

from torch.optim import Optimizer

from surestep.optim.recipe import Imported


@cache
def grokadamw() -> type[Optimizer]:
    """Return `GrokAdamW` of grokadamw as a class whose `state_dict` is torch's.

    The package keeps its moments in the groups, by parameter, where loading cannot find them again. Here they are saved
    as the state, by index, and put back into the groups.
    """
    base: Any = Imported("grokadamw", "GrokAdamW")()

    class Restartable(base):  # type: ignore[misc]  # the base is known only at run time
        def state_dict(self) -> dict[str, Any]:
            saved: dict[str, Any] = super().state_dict()
            indices = chain.from_iterable(group["params"] for group in saved["param_groups"])
            parameters = chain.from_iterable(group["params"] for group in self.param_groups)
            moments = {p: state for group in self.param_groups for p, state in group.get("state", {}).items()}
            state = {i: dict(moments[p]) for i, p in zip(indices, parameters, strict=True) if p in moments}
            groups = [{key: value for key, value in group.items() if key != "state"} for group in saved["param_groups"]]
            return {**saved, "state": state, "param_groups": groups}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            for group in self.param_groups:
                group["state"] = {p: self.state.pop(p) for p in group["params"] if p in self.state}

    Restartable.__name__ = Restartable.__qualname__ = "GrokAdamW"
    restartable: type[Optimizer] = Restartable
    return restartable
