"""Python scripts in today's spelling: one walk over the file, with the class around each piece of code in mind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surestep.compat.migrate.calls import check_unpacking, migrate_attribute, migrate_call
from surestep.compat.migrate.edits import Draft, Migration
from surestep.compat.migrate.methods import migrate_event, migrate_method, names_of_class
from surestep.compat.migrate.reading import Script, dotted, library, read_script, walk
from surestep.trainer.older_names import IMPORTS

if TYPE_CHECKING:
    import libcst as cst


def migrate_python(text: str, name: str, *, imports: bool = False) -> Migration:
    """Return a script in today's spelling; with `imports`, taking from surestep what it took from transformers."""
    return draft_python(text, name, imports=imports).finish()


def draft_python(text: str, name: str, *, imports: bool = False) -> Draft:
    """Return what is to be changed in a script, and what is to be told."""
    script = read_script(text, name)
    draft = Draft(text)
    _walk(script, draft, script.module, "", set())
    if imports:
        _take_from_surestep(script, draft)
    return draft


def _walk(script: Script, draft: Draft, node: Any, inside: str, own: set[str]) -> None:
    """Go through the code; `inside` is the kind of the class around it, and `own` the names that it gives itself."""
    cst = library()
    if isinstance(node, cst.ClassDef):
        inside, own = script.kind(node.name.value), names_of_class(node)
        for method in node.body.body:
            if isinstance(method, cst.FunctionDef):
                _method(script, draft, node, method, inside)
    elif isinstance(node, cst.Call):
        migrate_call(script, draft, node, inside)
    elif isinstance(node, cst.Attribute):
        migrate_attribute(script, draft, node, inside, own)
    elif isinstance(node, cst.Assign):
        check_unpacking(script, draft, node, inside)
    elif isinstance(node, cst.Name) and node.value in IMPORTS:
        _name(script, draft, node)
    for child in node.children:
        _walk(script, draft, child, inside, own)


def _method(script: Script, draft: Draft, owner: cst.ClassDef, method: cst.FunctionDef, kind: str) -> None:
    if kind == "trainer":
        migrate_method(script, draft, owner, method)
    elif kind == "callback":
        migrate_event(script, draft, method)


def _name(script: Script, draft: Draft, node: cst.Name) -> None:
    """Rename what a module of the original is called otherwise today."""
    package, _ = script.imported.get(node.value, ("", ""))
    if package.partition(".")[0] in {"transformers", "surestep"}:
        draft.replace(*script.span(node), IMPORTS[node.value], f"{node.value} is called {IMPORTS[node.value]}")


def _take_from_surestep(script: Script, draft: Draft) -> None:
    cst = library()
    for node in walk(script.module):
        if isinstance(node, cst.ImportFrom) and node.module is not None:
            _import(script, draft, node, dotted(node.module))
        elif isinstance(node, cst.Import) and any(dotted(one.name) == "transformers" for one in node.names):
            draft.leave(script.span(node)[0], "import transformers: what it is used for is not looked at")


def _import(script: Script, draft: Draft, node: Any, package: str) -> None:
    """Let names that surestep offers come from there, in a line of their own where others stay."""
    cst = library()
    if package.partition(".")[0] != "transformers" or isinstance(node.names, cst.ImportStar):
        return
    import surestep

    moved = [one for one in node.names if IMPORTS.get(dotted(one.name), dotted(one.name)) in surestep.__all__]
    if not moved:
        return
    if len(moved) == len(node.names):
        draft.replace(*script.span(node.module), "surestep", f"from {package} is from surestep")
        return
    names = ", ".join(_written(script, one) for one in moved)
    start, end = script.span(node)
    indent = script.text[script.text.rfind("\n", 0, start) + 1 : start]
    draft.insert(end, f"\n{indent}from surestep import {names}", f"{names}: from surestep")
    for one in moved:
        last = one.name if one.asname is None else one.asname.name
        draft.remove(script.span(one)[0], script.span(last)[1])


def _written(script: Script, one: cst.ImportAlias) -> str:
    name = IMPORTS.get(dotted(one.name), dotted(one.name))
    return name if one.asname is None else f"{name} as {script.code(one.asname.name)}"
