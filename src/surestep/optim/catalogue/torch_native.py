"""Optimizers that need nothing but torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.optim import Optimizer

from surestep.errors import ModelError
from surestep.optim.recipe import Option, Options, Recipe, Settings, adam, truth
from surestep.optim.targets import base_groups, divide, hidden_matrices, target_weights

_AMSGRAD = {"amsgrad": Option(truth)}


def _adafactor() -> type[Optimizer]:
    from surestep.optim.adafactor import Adafactor

    return Adafactor


def _lion() -> type[Optimizer]:
    from surestep.optim.lion import Lion

    return Lion


def _muon_with_adamw() -> type[Optimizer]:
    from surestep.optim.muon import MuonWithAdamW

    return MuonWithAdamW


def _muon(settings: Settings, options: Options) -> Options:
    """Mark what Muon takes: the linear layers in `target_modules`, or all hidden matrices."""
    model, targets = settings.need_model("muon"), settings.target_modules
    members = hidden_matrices(model) if targets is None else target_weights(model, targets)
    if not members:
        raise ModelError(
            f"{type(model).__name__} has no trainable hidden matrix for muon. Write optim='adamw_torch', or name "
            "linear layers in optim_target_modules."
        )
    groups = base_groups(model, settings.groups, settings.weight_decay)
    return {**options, "params": divide(groups, members, {"use_muon": True}, {"use_muon": False})}


def _lion_betas(_settings: Settings, options: Options) -> Options:
    """Gather Lion's betas; the run's are meant for Adam and would not suit it."""
    betas = options.pop("beta1"), options.pop("beta2")
    return {**options, "betas": betas}


TORCH_NATIVE: Mapping[str, Recipe] = {
    "adamw_torch": Recipe(lambda: torch.optim.AdamW, adam, _AMSGRAD),
    "adamw_torch_fused": Recipe(lambda: torch.optim.AdamW, adam, _AMSGRAD, {"fused": True}),
    # The run's schedule gives the rate, not Adafactor.
    "adafactor": Recipe(
        _adafactor,
        options={"clip_threshold": Option(float), "decay_rate": Option(float), "beta1": Option(float)},
        fixed={"scale_parameter": False, "relative_step": False},
    ),
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
    "muon": Recipe(
        _muon_with_adamw,
        adam,
        {
            "momentum": Option(float),
            "nesterov": Option(truth),
            "ns_steps": Option(int),
            "adjust_lr_fn": Option(str),
        },
        arrange=_muon,
    ),
    "lion": Recipe(_lion, options={"beta1": Option(float, 0.9), "beta2": Option(float, 0.99)}, arrange=_lion_betas),
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
