"""Calls in a script: arguments of the settings and of trainers, `train`, and what a name on a trainer is today."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from surestep.compat.migrate.edits import Draft
from surestep.compat.migrate.reading import Script, dotted, keys_of, library
from surestep.compat.migrate.settings import Fate, fates, is_old
from surestep.config.aliases import ALIASES, NOTHING, Renamed
from surestep.trainer.older_names import GONE_MEMBERS, MEMBERS, OLD_ARGUMENTS

if TYPE_CHECKING:
    import libcst as cst


def migrate_call(script: Script, draft: Draft, call: cst.Call, inside: str) -> None:
    """Bring a call to today's spelling, if it makes settings or a trainer, or trains."""
    callee = dotted(call.func)
    kind = script.kind(callee)
    if _is_super_init(call):
        kind = inside
    if kind == "arguments":
        _settings(script, draft, call)
    elif kind == "trainer":
        _trainer(script, draft, call)
    elif callee.endswith(".train") and _holder(script, callee.removesuffix(".train"), inside) == "trainer":
        _train(script, draft, call)


def _is_super_init(call: Any) -> bool:
    cst = library()
    func = call.func
    named = isinstance(func, cst.Attribute) and func.attr.value == "__init__"
    return named and isinstance(func.value, cst.Call) and dotted(func.value.func) == "super"


def _holder(script: Script, name: str, inside: str) -> str:
    """Return what a name holds: "trainer", "arguments" or nothing known; `inside` is the kind of the class around."""
    if name == "self":
        return inside
    if name.endswith(".args") and _holder(script, name.removesuffix(".args"), inside) == "trainer":
        return "arguments"
    return script.kinds.get(name, "")


def _settings(script: Script, draft: Draft, call: cst.Call) -> None:
    named = [arg for arg in call.args if arg.keyword is not None]
    items = [(arg.keyword.value, script.value(arg.value)) for arg in named if arg.keyword is not None]
    for arg, fate in zip(named, fates(items), strict=True):
        if fate is not None:
            _argument(script, draft, arg, fate)
    for arg in call.args:
        if arg.star == "**":
            _spread(script, draft, arg)


def _argument(script: Script, draft: Draft, arg: cst.Arg, fate: Fate) -> None:
    start, end = script.span(arg)
    if fate.problem:
        draft.leave(start, fate.problem)
    elif fate.name:
        assert arg.keyword is not None
        draft.replace(*script.span(arg.keyword), fate.name, fate.reason)
        if fate.value is not NOTHING:
            draft.replace(*script.span(arg.value), as_python(fate.value))
    else:
        draft.remove(start, _without_comma(script, arg, end), fate.reason)


def _without_comma(script: Script, arg: cst.Arg, end: int) -> int:
    """Return where an argument ends; the comma after it is no part of it."""
    return max(script.span(arg.value)[1], end if script.text[end - 1 : end] != "," else 0)


def _spread(script: Script, draft: Draft, arg: cst.Arg) -> None:
    """Tell of older names in a dictionary that is handed over as keywords: it may be used elsewhere as well."""
    for name, node in keys_of(script, arg.value):
        if is_old(name):
            alias = ALIASES[name]
            today = f"it is called {alias.to} today" if isinstance(alias, Renamed) else "it is gone"
            draft.leave(script.span(node)[0], f"{name} in a dictionary: {today}")


def as_python(value: Any) -> str:
    """Return a literal with the quotes that most scripts have."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(as_python, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_python(key)}: {as_python(one)}" for key, one in value.items()) + "}"
    return repr(value)


def _trainer(script: Script, draft: Draft, call: cst.Call) -> None:
    given = {arg.keyword.value: arg for arg in call.args if arg.keyword is not None}
    for name in given.keys() & OLD_ARGUMENTS.keys():
        keyword = given[name].keyword
        assert keyword is not None
        start, end = script.span(keyword)
        today = OLD_ARGUMENTS[name]
        simple = today.removesuffix("=...")
        if simple.isidentifier() and simple not in given:
            draft.replace(start, end, simple, f"{name} is called {simple}")
        else:
            draft.leave(start, f"{name} is no argument of a trainer any more: write {today}")
    for arg in call.args:
        for name, node in keys_of(script, arg.value) if arg.star == "**" else ():
            if name in OLD_ARGUMENTS:
                draft.leave(script.span(node)[0], f"{name} in a dictionary: write {OLD_ARGUMENTS[name]}")


def _train(script: Script, draft: Draft, call: cst.Call) -> None:
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == "model_path":
            start, end = script.span(arg.keyword)
            draft.replace(start, end, "resume_from_checkpoint", "model_path is called resume_from_checkpoint")
            draft.leave(start, "a folder where no training stopped once began anew here: today it must be a checkpoint")


def check_unpacking(script: Script, draft: Draft, node: cst.Assign, inside: str) -> None:
    """Tell of `step, loss = trainer.train()`: three values come back today."""
    cst = library()
    call, target = node.value, node.targets[0].target
    if not isinstance(call, cst.Call) or not isinstance(target, cst.Tuple):
        return
    callee = dotted(call.func)
    trains = callee.endswith(".train") and _holder(script, callee.removesuffix(".train"), inside) == "trainer"
    if trains and len(target.elements) == 2:
        draft.leave(script.span(node)[0], "train() returns three values today: global_step, training_loss, metrics")


def migrate_attribute(script: Script, draft: Draft, node: cst.Attribute, inside: str, own: set[str]) -> None:
    """Bring an attribute of a trainer or of settings to today's spelling; `own` are names that the class gives."""
    name = node.attr.value
    owner = dotted(node.value)
    holder = _holder(script, owner, inside)
    start, end = script.span(node.attr)
    if holder == "trainer" and not (owner == "self" and name in own):
        if name in MEMBERS:
            draft.replace(start, end, MEMBERS[name], f"{name} is {MEMBERS[name]}")
        elif name in GONE_MEMBERS:
            draft.leave(start, f"{name} is gone: {GONE_MEMBERS[name]}")
    elif holder == "arguments" and is_old(name):
        alias = ALIASES[name]
        if not isinstance(alias, Renamed):
            draft.leave(start, f"{name} is gone from the settings")
        elif alias.reads_alike and alias.keeps_value:
            draft.replace(start, end, alias.to, f"{name} is called {alias.to}")
        else:
            draft.leave(start, f"{name} is a matter of {alias.to} today, whose values are others")
