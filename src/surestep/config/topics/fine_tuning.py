"""Fine-tuning: parameters that are trained each in its own way, and other kinds of clipping."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from surestep.config.messages import refuse, shown
from surestep.config.nearest import did_you_mean
from surestep.config.rules import Flag, Number
from surestep.config.topic import Topic
from surestep.config.verdicts import HELD, MATHEMATICS, verdicts
from surestep.errors import ArgumentError


@dataclass
class FineTuningArguments:
    """Parameters that are trained each in its own way, and other kinds of clipping."""

    parameter_rules: list[dict[str, Any]] | str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Rules by parameter name, the first that matches holds: a list, or a JSON array, of objects with a "
            "'pattern' (a regular expression) and any of 'learning_rate', 'learning_rate_scale', 'weight_decay' and "
            "'freeze'."
        },
    )
    layerwise_lr_decay: float | None = field(
        default=None,
        kw_only=True,
        metadata={"help": "Factor by which the learning rate falls per layer, from the head down to the embeddings."},
    )
    max_grad_value: float | None = field(
        default=None,
        kw_only=True,
        metadata={"help": "Clamp each element of the gradients to this, in the place of clipping by norm."},
    )
    adaptive_clip_ratio: float | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Limit each unit's gradient to this share of the norm of its weights, in the place of clipping by "
            "norm."
        },
    )


_EXAMPLE = '{"pattern": "^encoder", "learning_rate_scale": 0.1}'
_RATE = Number(0, instead="Write a small positive number such as 1e-5.")
_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "learning_rate": _RATE,
    "learning_rate_scale": Number(0, instead="Write a factor on learning_rate such as 0.1."),
    "weight_decay": Number(0, instead="Write 0.0 for none."),
    "freeze": Flag(),
}
_KEYS = ("pattern", *_OPTIONS)


def _rules(name: str, value: Any) -> Any:
    """Take rules as a list of dictionaries; JSON is parsed."""
    if value is None:
        return None
    rules = _parsed(name, value) if isinstance(value, str) else value
    if not isinstance(rules, list | tuple):
        raise refuse(name, value, "a list of rules", f"Write for example {name}=[{_EXAMPLE}].")
    return [_rule(f"{name}[{place}]", rule) for place, rule in enumerate(rules)]


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        instead = f"It does not parse: {error}. Write for example '[{_EXAMPLE}]'."
        raise refuse(name, text, "a list of rules, or a JSON array of them", instead) from None


def _rule(name: str, rule: Any) -> dict[str, Any]:
    """Take one rule."""
    if not isinstance(rule, Mapping):
        raise refuse(name, rule, "a dictionary", f"Write for example {_EXAMPLE}.")
    for key in rule:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS)
            raise ArgumentError(f"{shown(name, rule)} has {key!r}; a rule takes {', '.join(_KEYS)}.{hint}")
    _check_pattern(name, rule)
    checked = {key: _OPTIONS[key](f"{name}[{key!r}]", value) for key, value in rule.items() if key != "pattern"}
    if not checked:
        instead = 'Write what holds for these parameters, or "freeze": False for what holds for the others.'
        raise refuse(name, rule, "a pattern and what holds for it", instead)
    if checked.get("freeze") and len(checked) > 1:
        others = ", ".join(key for key in checked if key != "freeze")
        raise refuse(name, rule, "consistent", f"What is frozen has no use for {others}: write freeze alone.")
    if {"learning_rate", "learning_rate_scale"} <= checked.keys():
        raise refuse(name, rule, "consistent", "Write learning_rate or learning_rate_scale.")
    return {"pattern": rule["pattern"], **checked}


def _check_pattern(name: str, rule: Mapping[str, Any]) -> None:
    pattern = rule.get("pattern")
    wants = "a regular expression, which is searched for in the parameters' names"
    if not isinstance(pattern, str):
        raise refuse(f"{name}['pattern']", pattern, wants, f"Write for example {_EXAMPLE}.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise refuse(f"{name}['pattern']", pattern, wants, f"It is none: {error}.") from None


def _check(args: FineTuningArguments) -> Iterator[str]:
    # Each would give every parameter its rate, and no order of the two is the natural one.
    if args.parameter_rules and args.layerwise_lr_decay is not None:
        yield (
            f"parameter_rules and layerwise_lr_decay={args.layerwise_lr_decay} both say how fast parameters learn. "
            "Write one of them: rules can say what a layer's rate is, and requires_grad_(False) or a FreezeCallback "
            "freezes parameters beside layerwise_lr_decay."
        )
    if args.max_grad_value is not None and args.adaptive_clip_ratio is not None:
        yield (
            f"max_grad_value={args.max_grad_value} and adaptive_clip_ratio={args.adaptive_clip_ratio} are two kinds of "
            "clipping. Write one of them."
        )


FINE_TUNING = Topic(
    FineTuningArguments,
    rules={
        "parameter_rules": _rules,
        "layerwise_lr_decay": Number(
            0,
            1,
            above_low=True,
            optional=True,
            instead="Write a factor such as 0.9, or None for one rate in all layers.",
        ),
        "max_grad_value": Number(
            0, above_low=True, optional=True, instead="Write a bound such as 0.5, or None to clip by norm."
        ),
        "adaptive_clip_ratio": Number(
            0, above_low=True, optional=True, instead="Write a share such as 0.01, or None to clip by norm."
        ),
    },
    check=_check,
    resumed=verdicts(
        (MATHEMATICS, "parameter_rules max_grad_value adaptive_clip_ratio"),
        (HELD, "layerwise_lr_decay"),
    ),
)
