"""Extension points of the model: how it is made, where it is placed, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from surestep.data.columns import can_return_loss, find_labels, inspected_model
from surestep.errors import ModelError
from surestep.losses.items import accepts_count
from surestep.losses.shift import Shift
from surestep.trainer.accelerator_view import AcceleratorView
from surestep.trainer.assemble import make_engine, seed_run
from surestep.trainer.checks import takes_trial
from surestep.trainer.defaults import smoother_of
from surestep.trainer.points.face import Face

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer


class ModelPoints(Face):
    """`call_model_init`, `create_accelerator_and_postprocess`, `_move_model_to_device` and what they stand on."""

    def _take_model(self, model: nn.Module) -> None:
        """Take a model, and place it on the device."""
        self.model = self.model_wrapped = model
        self._divides_by_items = self._num_weights = None
        self._shift = Shift.of(inspected_model(model))
        full_eval = self.args.fp16_full_eval or self.args.bf16_full_eval
        self.place_model_on_device = not full_eval
        if self.place_model_on_device:
            self._move_model_to_device(model, self.args.device)
        config = getattr(model, "config", None)
        if config is not None:
            config.use_cache = self.args.use_cache

    def _read_model(self, model: nn.Module) -> None:
        """Work out, once, what the model takes and gives; subclasses may say otherwise afterwards."""
        inner = inspected_model(model)
        self.label_names = find_labels(type(inner)) if self.args.label_names is None else self.args.label_names
        self.can_return_loss = can_return_loss(type(inner))
        self.model_accepts_loss_kwargs = accepts_count(inner)
        self._signature_columns = None
        self.label_smoother = smoother_of(self.args, model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Return a new model from `model_init`, which takes nothing or the trial of a search."""
        assert self.model_init is not None
        model = self.model_init(trial) if takes_trial(self.model_init) else self.model_init()
        if model is None:
            raise ModelError("model_init returned None. Return the model.")
        return model

    def create_accelerator_and_postprocess(self) -> None:
        """Make the engine for the arguments' device and precision."""
        self.engine = make_engine(cast("Trainer", self))
        self.accelerator = AcceleratorView(cast("Trainer", self))
        self.accelerator.announce()

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Place the model on the device, unless it says by itself where its parts are."""
        if getattr(model, "hf_device_map", None) is None and getattr(model, "quantization_method", None) is None:
            model.to(device)

    def _renew_model(self, trial: Any) -> None:
        """Make the model anew where there is a `model_init`, and place one that waited for training."""
        if self.model_init is not None:
            seed_run(self.args)
            self.optimizer = self.lr_scheduler = None
            self._take_model(self.call_model_init(trial))
        if not self.place_model_on_device:
            self._move_model_to_device(self.model, self.args.device)
