"""Extension points of the update: optimizer, schedule, clipping."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from surestep.config.enums import OptimizerNames, SchedulerType
from surestep.errors import ArgumentError
from surestep.optim.clipping import Adaptive, ByNorm, ByValue, Clipper, gradient_norm, head_parameters, no_gradients
from surestep.optim.groups import (
    GroupRule,
    ParameterGroup,
    decay_parameter_names,
    default_groups,
    layerwise_groups,
    pattern_groups,
)
from surestep.optim.schedules import build_schedule, has_direction
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
        from surestep.optim.build import build_optimizer, takes_groups

        if self.optimizer is None:
            target = self.model if model is None else model
            groups = self._parameter_groups(target)
            maker, kwargs = self.optimizer_cls_and_kwargs or self._named_optimizer(target)
            if not takes_groups(maker, kwargs):
                self._refuse_group_settings(getattr(maker, "__name__", str(maker)))
            self.optimizer = build_optimizer(maker, kwargs, target, groups)
        return self.optimizer

    def _named_optimizer(self, model: nn.Module) -> tuple[Any, dict[str, Any]]:
        """Return class and keywords of `args.optim`; a share of warm-up becomes steps once their number is known."""
        maker, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        if "warmup_steps" in kwargs and self.state.max_steps > 0:
            kwargs = {**kwargs, "warmup_steps": self.args.get_warmup_steps(self.state.max_steps)}
        return maker, kwargs

    def _parameter_groups(self, model: nn.Module) -> list[ParameterGroup]:
        """Return the groups that the arguments ask for; what their rules freeze stops requiring gradients."""
        args, decayed = self.args, self.get_decay_parameter_names(model)
        try:
            if args.parameter_rules:
                rules = [_group_rule(rule) for rule in cast("list[dict[str, Any]]", args.parameter_rules)]
                return pattern_groups(model, rules, args.weight_decay, args.learning_rate, decayed)
            if args.layerwise_lr_decay is not None:
                rate, decay = args.learning_rate, args.layerwise_lr_decay
                return layerwise_groups(model, rate, decay, weight_decay=args.weight_decay, decayed=decayed)
        except ArgumentError as error:
            name = "parameter_rules" if args.parameter_rules else "layerwise_lr_decay"
            raise ArgumentError(f"{name}: {error}") from error
        return default_groups(model, args.weight_decay, decayed)

    def _refuse_group_settings(self, optimizer: str) -> None:
        """Raise if the arguments ask for groups, which an optimizer that divides the parameters by itself ignores."""
        for name in ("parameter_rules", "layerwise_lr_decay"):
            if getattr(self.args, name):
                raise ArgumentError(
                    f"{name} has no effect on {optimizer}, which divides the parameters by itself. Leave {name} out, "
                    'or take another optimizer, such as optim="adamw_torch".'
                )

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Make the schedule that the arguments name, over `num_training_steps` steps, unless there is one."""
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            if chosen is None:
                raise ArgumentError("create_scheduler needs an optimizer; call create_optimizer first, or pass one.")
            name = SchedulerType(self.args.lr_scheduler_type).value
            self.lr_scheduler = build_schedule(
                name,
                chosen,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                num_training_steps=num_training_steps,
                scheduler_kwargs=self._scheduler_kwargs(name),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _scheduler_kwargs(self, name: str) -> dict[str, Any]:
        """Return `lr_scheduler_kwargs`; a schedule that waits for a metric gets that metric's direction with them."""
        args = self.args
        given = cast("dict[str, Any]", args.lr_scheduler_kwargs or {})
        if args.metric_for_best_model is None or not has_direction(name):
            return given
        return {"mode": "max" if args.greater_is_better else "min", **given}

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: nn.Module | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the class that `args.optim` names and its keywords."""
        from surestep.optim.build import optimizer_class_and_kwargs

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

    def _clipper(self) -> Clipper:
        """Return what brings gradients into bounds; where nothing is to be clipped it only takes their norm."""
        from surestep.optim.build import updates_in_backward

        args = self.args
        if self.optimizer_cls_and_kwargs is None and updates_in_backward(OptimizerNames(args.optim).value):
            return no_gradients
        if args.max_grad_value is not None:
            return ByValue(args.max_grad_value)
        if args.adaptive_clip_ratio is not None:
            return Adaptive(args.adaptive_clip_ratio, skip=head_parameters(self.model))
        return ByNorm(args.max_grad_norm) if args.max_grad_norm > 0 else gradient_norm

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


def _group_rule(rule: dict[str, Any]) -> GroupRule:
    """Return a rule of the arguments as one of the optimizer's groups."""
    return GroupRule(
        rule["pattern"],
        lr=rule.get("learning_rate"),
        lr_scale=rule.get("learning_rate_scale"),
        weight_decay=rule.get("weight_decay"),
        freeze=rule.get("freeze", False),
    )
