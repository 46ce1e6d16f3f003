"""Extension points of the update: optimizer, schedule, clipping."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from surestep.config.enums import OptimizerNames, SchedulerType
from surestep.errors import ArgumentError
from surestep.optim.build import build_optimizer, optimizer_class_and_kwargs
from surestep.optim.clipping import ByNorm, gradient_norm
from surestep.optim.groups import decay_parameter_names, default_groups
from surestep.optim.schedules import build_schedule
from surestep.trainer.points.face import Face


class OptimizingPoints(Face):
    """`create_optimizer`, `create_scheduler` and what they stand on."""

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Make the optimizer and the schedule, unless they are there. What an override only returns is used as well."""
        made = self.create_optimizer()
        if self.optimizer is None:
            self.optimizer = made
        if self.optimizer is None:
            raise ArgumentError(
                "create_optimizer neither set self.optimizer nor returned an optimizer. Return the one that it makes."
            )
        scheduler = self.create_scheduler(num_training_steps, self.optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler, self._created_lr_scheduler = scheduler, True

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the optimizer that the arguments name, with no decay on biases and norms, unless there is one."""
        if self.optimizer is None:
            target = self.model if model is None else model
            groups = default_groups(target, self.args.weight_decay, self.get_decay_parameter_names(target))
            maker, kwargs = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, target)
            self.optimizer = build_optimizer(maker, kwargs, target, groups)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Make the schedule that the arguments name, over `num_training_steps` steps, unless there is one."""
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            if chosen is None:
                raise ArgumentError("create_scheduler needs an optimizer; call create_optimizer first, or pass one.")
            self.lr_scheduler = build_schedule(
                SchedulerType(self.args.lr_scheduler_type).value,
                chosen,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                num_training_steps=num_training_steps,
                scheduler_kwargs=cast("dict[str, Any] | None", self.args.lr_scheduler_kwargs),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: nn.Module | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the class that `args.optim` names and its keywords."""
        return optimizer_class_and_kwargs(
            OptimizerNames(args.optim).value,
            learning_rate=args.learning_rate,
            adam_beta1=args.adam_beta1,
            adam_beta2=args.adam_beta2,
            adam_epsilon=args.adam_epsilon,
            weight_decay=args.weight_decay,
            warmup_steps=args.warmup_steps,
            optim_args=args.optim_args,
            optim_target_modules=args.optim_target_modules,
            model=model,
        )

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of the parameters that weight decay acts on."""
        return decay_parameter_names(model)

    def _clipper(self) -> Any:
        """Return what brings gradients into bounds; without `max_grad_norm` it only takes their norm."""
        return ByNorm(self.args.max_grad_norm) if self.args.max_grad_norm > 0 else gradient_norm

    def _get_learning_rate(self) -> float:
        """Return the rate of the first group as it stands."""
        rates = self.get_learning_rates()
        return rates[0]

    def get_learning_rates(self) -> list[float]:
        """Return the rate of each parameter group."""
        return [float(group["lr"]) for group in self._existing_optimizer().param_groups]

    def get_num_trainable_parameters(self) -> int:
        """Return how many weights are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def get_optimizer_group(self, param: nn.Parameter | None = None) -> Any:
        """Return the group that holds `param`, or without one the parameters of every group."""
        groups = self._existing_optimizer().param_groups
        if param is None:
            return [group["params"] for group in groups]
        return next((group for group in groups if any(param is held for held in group["params"])), None)

    def _existing_optimizer(self) -> Optimizer:
        if self.optimizer is None:
            raise ArgumentError("The trainer has no optimizer yet; call create_optimizer() or train() first.")
        return self.optimizer
