"""Optimizers that need nothing but torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from surestep.optim.recipe import Option, Recipe, adam, truth

_AMSGRAD = {"amsgrad": Option(truth)}


TORCH_NATIVE: Mapping[str, Recipe] = {
    "adamw_torch": Recipe(lambda: torch.optim.AdamW, adam, _AMSGRAD),
    "adamw_torch_fused": Recipe(lambda: torch.optim.AdamW, adam, _AMSGRAD, {"fused": True}),
    "sgd": Recipe(
        lambda: torch.optim.SGD,
        options={
            "momentum": Option(float),
            "dampening": Option(float),
            "weight_decay": Option(float),
            "nesterov": Option(truth),
        },
    ),
    "adagrad": Recipe(
        lambda: torch.optim.Adagrad,
        options={
            "lr_decay": Option(float),
            "weight_decay": Option(float),
            "eps": Option(float),
            "initial_accumulator_value": Option(float),
        },
    ),
    "rmsprop": Recipe(
        lambda: torch.optim.RMSprop,
        options={
            "momentum": Option(float),
            "alpha": Option(float),
            "eps": Option(float),
            "weight_decay": Option(float),
            "centered": Option(truth),
        },
    ),
    # Those below are not among the original's names.
    "adam": Recipe(lambda: torch.optim.Adam, adam, _AMSGRAD),
    "adamax": Recipe(lambda: torch.optim.Adamax, adam),
    "nadam": Recipe(
        lambda: torch.optim.NAdam,
        adam,
        {"momentum_decay": Option(float), "decoupled_weight_decay": Option(truth)},
    ),
    "radam": Recipe(lambda: torch.optim.RAdam, adam, {"decoupled_weight_decay": Option(truth)}),
    "adadelta": Recipe(lambda: torch.optim.Adadelta, options={"rho": Option(float), "eps": Option(float)}),
    "asgd": Recipe(
        lambda: torch.optim.ASGD,
        options={"lambd": Option(float), "alpha": Option(float), "t0": Option(float)},
    ),
}
