"""Optimizers that come with a package of their own, asked for by name when it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.optim import Optimizer

from surestep.errors import ArgumentError
from surestep.optim.catalogue.grokadamw import grokadamw
from surestep.optim.catalogue.lomo import lomo
from surestep.optim.layerwise import LayerwiseOptimizer
from surestep.optim.recipe import Imported, Option, Options, Recipe, Settings, adam, defaults_only, dtype, keep, truth
from surestep.optim.targets import base_groups, divide, target_weights

# bitsandbytes: one class for the precisions of the state, paged to the host or not.


def _bitsandbytes(kind: str, bits: int, *, paged: bool | None = False) -> Recipe:
    given, options, arrange = _BITSANDBYTES[kind]
    fixed: Options = {"optim_bits": bits} if paged is None else {"optim_bits": bits, "is_paged": paged}
    return Recipe(Imported("bitsandbytes.optim", kind), given, options, fixed, arrange)


def _betas(settings: Settings) -> Options:
    return {"betas": (settings.adam_beta1, settings.adam_beta2)}


def _three_betas(settings: Settings, options: Options) -> Options:
    """Gather AdEMAMix's betas, of which the run gives the first two."""
    run = {"beta1": settings.adam_beta1, "beta2": settings.adam_beta2, "eps": settings.adam_epsilon}
    merged = run | options
    betas = tuple(merged.pop(key) for key in ("beta1", "beta2", "beta3"))
    return {**merged, "betas": betas}


_ADEMAMIX = {
    "beta1": Option(float),
    "beta2": Option(float),
    "beta3": Option(float, 0.9999),
    "alpha": Option(float, 5.0),
    "eps": Option(float),
    "t_alpha": Option(int),
    "t_beta3": Option(int),
}
_RMSPROP = {
    "alpha": Option(float),
    "eps": Option(float),
    "momentum": Option(float),
    "weight_decay": Option(float),
    "centered": Option(truth),
}
# Class -> what the run gives it, what optim_args may say, how they are arranged.
_BITSANDBYTES: Mapping[str, tuple[Callable[[Settings], Options], Mapping[str, Option], Any]] = {
    "AdamW": (adam, {}, keep),
    "Lion": (_betas, {}, keep),
    "RMSprop": (defaults_only, _RMSPROP, keep),
    "AdEMAMix": (defaults_only, _ADEMAMIX, _three_betas),
}

# GaLore and APOLLO: gradients of target layers projected to a low rank.


@dataclass(frozen=True)
class LowRank:
    """Divides the groups: the options in `target_keys` go to the weights of the target layers only."""

    name: str
    target_keys: frozenset[str]

    def __call__(self, settings: Settings, options: Options) -> Options:
        """Return the optimizer's arguments, with groups of its own under `params`."""
        model = settings.need_model(self.name)
        if settings.target_modules is None:
            raise ArgumentError(
                f"{self.name} needs optim_target_modules: write 'all-linear', or names of linear layers."
            )
        inside = {key: value for key, value in options.items() if key in self.target_keys}
        common = {key: value for key, value in options.items() if key not in self.target_keys}
        weights = target_weights(model, settings.target_modules)
        groups = base_groups(model, settings.groups, settings.weight_decay)
        return {**common, "params": divide(groups, weights, inside, {})}


@dataclass(frozen=True)
class Layerwise:
    """Hands the class of a low-rank optimizer to the layer-wise one."""

    load: Callable[[], type[Optimizer]]
    low_rank: LowRank

    def __call__(self, settings: Settings, options: Options) -> Options:
        """Return the layer-wise optimizer's arguments."""
        return {**self.low_rank(settings, options), "inner": self.load()}


def _layerwise() -> type[Optimizer]:
    return LayerwiseOptimizer


def _low_rank(name: str, load: Imported, options: Mapping[str, Option], **parts: Any) -> dict[str, Recipe]:
    """Return the recipes of a low-rank optimizer and of its layer-wise twin."""
    run = {"betas", "eps"} if parts.get("given") is adam else set()
    plain = LowRank(name, frozenset({*options, *run}))
    twin = LowRank(f"{name}_layerwise", plain.target_keys)
    return {
        plain.name: Recipe(load, options=options, arrange=plain, **parts),
        twin.name: Recipe(_layerwise, options=options, arrange=Layerwise(load, twin), in_backward=True, **parts),
    }


_GALORE_OPTIONS = {
    "rank": Option(int, 128),
    "update_proj_gap": Option(int, 200),
    "scale": Option(float, 0.25),
    "proj_type": Option(str, "std"),
}
_APOLLO_OPTIONS = {
    "rank": Option(int, 128),
    "proj": Option(str, "random"),
    "scale_type": Option(str, "channel"),
    "update_proj_gap": Option(int, 200),
    "scale": Option(float, 1.0),
    "proj_type": Option(str, "std"),
}
_galore = partial(Imported, "galore_torch", also=("bitsandbytes", "transformers"))
_apollo = partial(Imported, "apollo_torch", also=("bitsandbytes", "transformers"))

# LOMO: updates in backward.


def _with_model(settings: Settings, options: Options) -> Options:
    return {**options, "model": settings.need_model("LOMO")}


# Schedule-free: the average of the weights takes the place of a schedule.


def _schedule_free(settings: Settings) -> Options:
    return {"weight_decay": settings.weight_decay}


def _with_warmup(settings: Settings) -> Options:
    return {**_schedule_free(settings), "warmup_steps": settings.warmup_steps}


_AVERAGING = {"weight_lr_power": Option(float, 2.0), "r": Option(float, 0.0)}
_LOW_BIT = {"block_size": Option(int, 256), "bf16_stochastic_round": Option(truth, False)}

PACKAGES: Mapping[str, Recipe] = {
    "adamw_torch_xla": Recipe(Imported("torch_xla.amp.syncfree", "AdamW"), adam),
    "adamw_torch_npu_fused": Recipe(Imported("torch_npu.optim", "NpuFusedAdamW"), adam),
    "adamw_anyprecision": Recipe(
        Imported("torchdistx.optimizers", "AnyPrecisionAdamW", source="https://github.com/pytorch/torchdistx"),
        adam,
        {
            "use_kahan_summation": Option(truth, False),
            "momentum_dtype": Option(dtype, dtype("float32")),
            "variance_dtype": Option(dtype, dtype("float32")),
            "compensation_buffer_dtype": Option(dtype, dtype("bfloat16")),
        },
    ),
    "adamw_torch_4bit": Recipe(Imported("torchao.optim", "AdamW4bit"), adam, _LOW_BIT),
    "adamw_torch_8bit": Recipe(Imported("torchao.optim", "AdamW8bit"), adam, _LOW_BIT),
    "adamw_bnb_8bit": _bitsandbytes("AdamW", 8),
    "adamw_8bit": _bitsandbytes("AdamW", 8),
    "paged_adamw_32bit": _bitsandbytes("AdamW", 32, paged=True),
    "paged_adamw_8bit": _bitsandbytes("AdamW", 8, paged=True),
    "ademamix": _bitsandbytes("AdEMAMix", 32),
    "ademamix_8bit": _bitsandbytes("AdEMAMix", 8),
    "paged_ademamix_32bit": _bitsandbytes("AdEMAMix", 32, paged=True),
    "paged_ademamix_8bit": _bitsandbytes("AdEMAMix", 8, paged=True),
    "lion_32bit": _bitsandbytes("Lion", 32),
    "lion_8bit": _bitsandbytes("Lion", 8),
    "paged_lion_32bit": _bitsandbytes("Lion", 32, paged=True),
    "paged_lion_8bit": _bitsandbytes("Lion", 8, paged=True),
    "rmsprop_bnb": _bitsandbytes("RMSprop", 32, paged=None),
    "rmsprop_bnb_32bit": _bitsandbytes("RMSprop", 32, paged=None),
    "rmsprop_bnb_8bit": _bitsandbytes("RMSprop", 8, paged=None),
    **_low_rank("galore_adamw", _galore("GaLoreAdamW"), _GALORE_OPTIONS),
    **_low_rank("galore_adamw_8bit", _galore("GaLoreAdamW8bit"), _GALORE_OPTIONS),
    **_low_rank(
        "galore_adafactor",
        _galore("GaLoreAdafactor"),
        _GALORE_OPTIONS,
        fixed={"scale_parameter": False, "relative_step": False},
    ),
    **_low_rank("apollo_adamw", _apollo("APOLLOAdamW"), _APOLLO_OPTIONS, given=adam),
    "lomo": Recipe(partial(lomo, "Lomo"), arrange=_with_model, in_backward=True),
    "adalomo": Recipe(partial(lomo, "AdaLomo"), arrange=_with_model, in_backward=True),
    "grokadamw": Recipe(
        grokadamw,
        options={
            "alpha_init": Option(float, 0.98),
            "lamb": Option(float, 2.0),
            "gamma": Option(float, 0.1),
            "grokking_signal_decay_rate": Option(float, 0.1),
            "gradient_clipping": Option(float, 1.0),
        },
    ),
    "schedule_free_radam": Recipe(
        Imported("schedulefree", "RAdamScheduleFree"), lambda run: {**run.adam, **_schedule_free(run)}, _AVERAGING
    ),
    "schedule_free_adamw": Recipe(
        Imported("schedulefree", "AdamWScheduleFree"), lambda run: {**run.adam, **_with_warmup(run)}, _AVERAGING
    ),
    "schedule_free_sgd": Recipe(Imported("schedulefree", "SGDScheduleFree"), _with_warmup, _AVERAGING),
    "stable_adamw": Recipe(
        Imported("optimi", "StableAdamW"),
        lambda run: {**run.adam, "weight_decay": run.weight_decay},
        {"decouple_lr": Option(truth, False), "max_lr": Option(float, None), "kahan_sum": Option(truth, None)},
    ),
}
