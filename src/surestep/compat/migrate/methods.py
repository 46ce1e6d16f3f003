"""Overrides of an older form: today's parameters are put in where that says the same, and told of where it does not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from surestep.compat.migrate.edits import Draft
from surestep.compat.migrate.reading import Script, dotted, library, walk
from surestep.trainer.older_names import GONE_METHODS, POINTS, UNCALLED, Point, fits

if TYPE_CHECKING:
    import libcst as cst

# What a new parameter alone does not bring to today's form.
_BY_HAND = {
    "set_initial_training_values": "its fifth value is the number of samples of a step today",
}
_ONCE = {point.once: name for name, point in POINTS.items() if point.once} | {
    "prediction_loop": "evaluation_loop",
    "_prediction_loop": "evaluation_loop",
    "get_optimizers": "create_optimizer_and_scheduler",
}


def migrate_method(script: Script, draft: Draft, owner: cst.ClassDef, method: cst.FunctionDef) -> None:
    """Bring a method of a trainer's subclass to today's form."""
    name = method.name.value
    start = script.span(method.name)[0]
    if name in UNCALLED or name in GONE_METHODS:
        draft.leave(start, f"nothing calls {name}. In its place: {UNCALLED.get(name) or GONE_METHODS[name]}")
    elif name in _ONCE:
        today = f"{_ONCE[name]}(self, {POINTS[_ONCE[name]].today})" if _ONCE[name] in POINTS else _ONCE[name]
        draft.leave(start, f"{name} is an older name: write {today}")
    elif name in POINTS and not fits(_signature(script, method), POINTS[name]):
        problem = _problem(method, POINTS[name])
        if problem:
            draft.leave(start, f"{name} is of an older form, and {problem}: write {name}(self, {POINTS[name].today})")
            return
        _update(script, draft, owner, method, POINTS[name])
        draft.replace(start, start, "", f"{name} has the parameters of today")


def _parameters(method: cst.FunctionDef) -> list[Any]:
    """Return the parameters that may be given by position, without `self`."""
    params = method.params
    every = [*params.posonly_params, *params.params]
    static = any(dotted(one.decorator) == "staticmethod" for one in method.decorators)
    return every if static else every[1:]


def _signature(script: Script, method: cst.FunctionDef) -> inspect.Signature:
    kinds, empty = inspect.Parameter, inspect.Parameter.empty
    found: list[tuple[Any, Any]] = [(one, kinds.POSITIONAL_OR_KEYWORD) for one in _parameters(method)]
    cst = library()
    if isinstance(method.params.star_arg, cst.Param):
        found.append((method.params.star_arg, kinds.VAR_POSITIONAL))
    found += [(one, kinds.KEYWORD_ONLY) for one in method.params.kwonly_params]
    if method.params.star_kwarg is not None:
        found.append((method.params.star_kwarg, kinds.VAR_KEYWORD))
    return inspect.Signature(
        [
            inspect.Parameter(one.name.value, kind, default=empty if one.default is None else script.code(one.default))
            for one, kind in found
        ]
    )


def _problem(method: cst.FunctionDef, point: Point) -> str:
    """Say why a form cannot be brought to today's by its parameters alone; nothing where it can."""
    name, parameters = method.name.value, _parameters(method)
    names = [one.name.value for one in parameters]
    if name in _BY_HAND:
        return _BY_HAND[name]
    if name == "compute_loss" and "return_outputs" not in names:
        return "it returns no outputs"
    strange = [one.name.value for one in parameters if one.default is None and one.name.value not in point.names]
    if strange := [one for one in strange if one not in point.supply]:
        return f"{', '.join(strange)} is no parameter of today"
    if [one for one in names if one in point.names] != [one for one in point.names if one in names]:
        return "its parameters stand in another order"
    used = {one for one in names if one in point.supply and _is_used(method, one)}
    return f"it uses {', '.join(sorted(used))}" if used else ""


def _is_used(method: cst.FunctionDef, name: str) -> bool:
    """Say whether a parameter does anything but go to the same method of the base class."""
    cst = library()
    handed = {id(arg.value) for call in _super_calls(method) for arg in call.args}
    names = (one for one in walk(method.body) if isinstance(one, cst.Name) and one.value == name)
    keywords = {id(arg.keyword) for call in _super_calls(method) for arg in call.args}
    return any(id(one) not in handed | keywords for one in names)


def _super_calls(method: cst.FunctionDef) -> Iterator[cst.Call]:
    """Yield the calls of the same method of the base class."""
    cst = library()
    for node in walk(method.body):
        if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute):
            continue
        base = node.func.value
        if node.func.attr.value == method.name.value and isinstance(base, cst.Call) and dotted(base.func) == "super":
            yield node


def _update(script: Script, draft: Draft, owner: cst.ClassDef, method: cst.FunctionDef, point: Point) -> None:
    there = {one.name.value: one for one in _parameters(method)}
    for name in there.keys() & point.supply.keys():
        _take_out(script, draft, method, there[name], name)
    missing = [name for name in point.names if name not in there]
    last = [one for name, one in there.items() if name not in point.supply][-1:]
    after: list[str] = []
    defaulted = False
    for name in point.names:
        if name in there:
            defaulted = defaulted or there[name].default is not None
            continue
        following = next((there[one] for one in point.names[point.names.index(name) :] if one in there), None)
        written = f"{name}={point.defaults.get(name, 'None')}" if name in point.defaults or defaulted else name
        if following is not None:
            draft.insert(script.span(following)[0], f"{written}, ")
        else:
            after.append(written)
    _append(script, draft, method, last, after)
    _hand_on(script, draft, method, list(there))
    _keep_numbers(script, draft, owner, method, missing)


def _take_out(script: Script, draft: Draft, method: cst.FunctionDef, parameter: Any, name: str) -> None:
    """Take a parameter that is no more out of the definition, and out of what is handed to the base class."""
    start = script.span(parameter)[0]
    ends = [script.span(one)[1] for one in (parameter.name, parameter.annotation, parameter.default) if one is not None]
    draft.remove(start, max(ends))
    for call in _super_calls(method):
        for arg in call.args:
            if dotted(arg.value) == name:
                draft.remove(script.span(arg)[0], script.span(arg.value)[1])


def _append(script: Script, draft: Draft, method: cst.FunctionDef, last: list[Any], new: list[str]) -> None:
    """Put parameters after the last one of today's, on lines of their own where it has one."""
    if not new:
        return
    if not last:
        draft.insert(script.span(method.params.params[0])[1], "".join(f", {one}" for one in new))
        return
    parts = (last[0].name, last[0].annotation, last[0].default)
    start, end = script.span(last[0])[0], max(script.span(one)[1] for one in parts if one is not None)
    line = script.text.rfind("\n", 0, start) + 1
    alone = line > 0 and not script.text[line:start].strip() and "def " not in script.text[line:start]
    separator = f",\n{script.text[line:start]}" if alone else ", "
    draft.insert(end, "".join(separator + one for one in new))


def _hand_on(script: Script, draft: Draft, method: cst.FunctionDef, names: list[str]) -> None:
    """Hand a parameter that was put between others to the base class as well, where all go there by position."""
    point = POINTS[method.name.value]
    if list(point.names[: len(names)]) == names:
        return
    for call in _super_calls(method):
        if [dotted(arg.value) for arg in call.args] == names and all(arg.keyword is None for arg in call.args):
            first, last = script.span(call.args[0])[0], script.span(call.args[-1].value)[1]
            given = [f"{name}={name}" if name in point.by_name else name for name in point.names]
            draft.replace(first, last, ", ".join(given))


def _keep_numbers(
    script: Script, draft: Draft, owner: cst.ClassDef, method: cst.FunctionDef, missing: list[str]
) -> None:
    """Say in the class what the older form said by what it did not take: how its loss is divided."""
    name = method.name.value
    if "num_items_in_batch" not in missing:
        return
    if name == "compute_loss" and "loss_is_scaled_for_ga" not in names_of_class(owner):
        start = script.span(method.decorators[0] if method.decorators else method)[0]
        line = script.text.rfind("\n", 0, start) + 1
        indent = script.text[line:start]
        note = "loss_is_scaled_for_ga = False: the loss is a mean over its micro-batch, as it was"
        draft.insert(start, f"loss_is_scaled_for_ga = False\n\n{indent}", note)
    if name == "training_step":
        for node in walk(method.body):
            _divide(script, draft, node)


def _divide(script: Script, draft: Draft, node: cst.CSTNode) -> None:
    """Divide by the micro-batches of a step what the accelerator divided once."""
    cst = library()
    if not isinstance(node, cst.Call) or dotted(node.func) != "self.accelerator.backward" or not node.args:
        return
    value = node.args[0].value
    start, end = script.span(value)
    simple = bool(dotted(value))
    if not simple:
        draft.insert(start, "(")
    draft.insert(
        end,
        ("" if simple else ")") + " / self.current_gradient_accumulation_steps",
        "accelerator.backward no longer divides by the micro-batches of a step",
    )


def names_of_class(owner: cst.ClassDef) -> set[str]:
    """Return the names that a class gives itself: its methods, and what it assigns."""
    cst = library()
    names = set()
    for node in walk(owner):
        if isinstance(node, cst.FunctionDef):
            names.add(node.name.value)
        elif isinstance(node, cst.AssignTarget):
            names.add(dotted(node.target).removeprefix("self."))
    return names


def migrate_event(script: Script, draft: Draft, method: cst.FunctionDef) -> None:
    """Rename the tokenizer that events of callbacks were given."""
    cst = library()
    names = [one.name.value for one in _parameters(method)]
    if not method.name.value.startswith("on_") or "tokenizer" not in names or "processing_class" in names:
        return
    draft.replace(*script.span(method.name), method.name.value, "tokenizer is called processing_class")
    for node in walk(method):
        if isinstance(node, cst.Name) and node.value == "tokenizer" and not _is_attribute(method, node):
            draft.replace(*script.span(node), "processing_class")


def _is_attribute(method: cst.FunctionDef, name: Any) -> bool:
    cst = library()
    return any(
        (isinstance(node, cst.Attribute) and node.attr is name) or (isinstance(node, cst.Arg) and node.keyword is name)
        for node in walk(method)
    )
