"""Dataclasses from the command line, dictionaries, JSON and YAML: the original's `HfArgumentParser`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from surestep.config.aliases import ALIASES
from surestep.config.construction import ArgumentsType, alias_of, unknown_name
from surestep.config.options import add_option, truth
from surestep.config.topics.memory import MIRRORS
from surestep.errors import ArgumentError

if TYPE_CHECKING:
    import os

# What YAML 1.1 reads as a string, and everybody means as a number: 5e-5.
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_UNSET = object()


def HfArg(  # noqa: N802  (the original's name)
    *,
    aliases: str | list[str] | None = None,
    help: str | None = None,  # noqa: A002  (the original's name)
    default: Any = dataclasses.MISSING,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
    metadata: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Return a dataclass field with help and aliases for the command line."""
    described = {"aliases": aliases, "help": help}
    metadata = {**(metadata or {}), **{key: value for key, value in described.items() if value is not None}}
    return dataclasses.field(metadata=metadata, default=default, default_factory=default_factory, **kwargs)


def _kinds(given: Any) -> list[type]:
    """Return dataclasses as a list: none, one, or some of them."""
    if given is None:
        return []
    single = dataclasses.is_dataclass(given)
    return [given] if single else list(given)


def _fields(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass that its construction takes."""
    return {field.name: field for field in dataclasses.fields(kind) if field.init}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _knows(kind: type, name: str) -> bool:
    """Say whether a dataclass takes a name: as a field, or as an older name of one."""
    fields = _fields(kind)
    return name in fields or (isinstance(kind, ArgumentsType) and alias_of(name, fields) is not None)


class HfArgumentParser(argparse.ArgumentParser):
    """An argument parser that makes dataclasses, from their type hints.

    Beyond the original's: older names of settings are taken everywhere, an unknown name is answered with the nearest
    real one, a union is read as the first of its types that fits, a dictionary as a JSON object, and what was not
    given is left to the dataclass. Arguments added by hand come back as a namespace of their own, last.
    """

    def __init__(self, dataclass_types: type | Iterable[type] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(**kwargs)
        self.dataclass_types = _kinds(dataclass_types)
        for kind in self.dataclass_types:
            self._add_dataclass(kind)
        self._declared = {name: self.get_default(name) for kind in self.dataclass_types for name in _fields(kind)}

    def _add_dataclass(self, kind: type) -> None:
        group = getattr(kind, "_argument_group_name", None)
        target = self.add_argument_group(group) if group else self
        try:
            hints = get_type_hints(kind, include_extras=True)
        except NameError as error:
            raise ArgumentError(
                f"The types of {kind.__name__} cannot be read: {error}. Define them where the class is defined, "
                "outside of functions and of `if TYPE_CHECKING`."
            ) from None
        for name, field in _fields(kind).items():
            add_option(target, field, hints[name])

    def parse_args_into_dataclasses(
        self,
        args: list[str] | None = None,
        return_remaining_strings: bool = False,
        look_for_args_file: bool = True,
        args_filename: str | None = None,
        args_file_flag: str | None = None,
    ) -> tuple[Any, ...]:
        """Return an object of each dataclass from command-line arguments, `sys.argv` by default.

        Arguments also come from files: `args_filename`, else the script's name with `.args` when `look_for_args_file`,
        and those that the option `args_file_flag` names. Later ones win, the command line last. Unknown arguments are
        an error, or returned last when `return_remaining_strings`.
        """
        argv = self._with_files(args, look_for_args_file, args_filename, args_file_flag)
        older, argv = self._parse_older(argv)
        unset = dict.fromkeys(self._declared, _UNSET)
        namespace, remaining = self.parse_known_args(argv, argparse.Namespace(**unset))
        given = {**vars(namespace), **older}
        outputs: list[Any] = [kind(**self._take(kind, given)) for kind in self.dataclass_types]
        others = {name: value for name, value in given.items() if name not in unset and name not in older}
        if others:
            outputs.append(argparse.Namespace(**others))
        if return_remaining_strings:
            return (*outputs, remaining)
        if remaining:
            raise ArgumentError(f"Unknown arguments: {' '.join(remaining)}.{self._hints(remaining)}")
        return tuple(outputs)

    def _take(self, kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was given for one dataclass, and what `set_defaults` set."""
        values = {name: value for name, value in given.items() if value is not _UNSET and _knows(kind, name)}
        for name, field in _fields(kind).items():
            default = self.get_default(name)
            # A truth value without a default of its own is False.
            if given[name] is _UNSET and (default is not self._declared[name] or _is_required(field)):
                values[name] = default
        return values

    def _with_files(self, args: list[str] | None, look: bool, filename: str | None, flag: str | None) -> list[str]:
        """Return the arguments with those of files before them."""
        argv = list(sys.argv[1:] if args is None else args)
        files = [Path(filename)] if filename else []
        if look and not filename and sys.argv and Path(sys.argv[0]).name:
            files.append(Path(sys.argv[0]).with_suffix(".args"))
        if flag:
            extractor = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            extractor.add_argument(flag, action="append", default=[], dest="files")
            named, argv = extractor.parse_known_args(argv)
            files += [Path(file) for file in named.files]
        from_files = [word for file in files if file.exists() for word in file.read_text(encoding="utf-8").split()]
        return from_files + argv

    def _parse_older(self, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the older names given, and the arguments without them."""
        parser = argparse.ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False)
        for name, alias in ALIASES.items():
            known = any(name in _fields(kind) for kind in self.dataclass_types)
            if name in MIRRORS or known or not any(_knows(kind, name) for kind in self.dataclass_types):
                continue
            bare: dict[str, Any] = (
                {"nargs": "?", "const": True, "type": truth} if alias.kind is bool else {"type": alias.kind}
            )
            spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
            parser.add_argument(*spellings, dest=name, default=argparse.SUPPRESS, **bare)
        older, rest = parser.parse_known_args(argv)
        return vars(older), rest

    def _hints(self, words: Iterable[str]) -> str:
        """Return the sentences that offer real names for unknown options."""
        names = [word.lstrip("-").partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
        return "".join(f" {self._unknown(name)}" for name in names)

    def _unknown(self, name: str) -> str:
        known = [field for kind in self.dataclass_types for field in _fields(kind)]
        owners = " and ".join(kind.__name__ for kind in self.dataclass_types) or "The parser"
        return unknown_name(owners, name, known)

    def parse_dict(self, args: dict[str, Any], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """Return an object of each dataclass from a dictionary. Unknown keys are an error unless allowed."""
        unknown = [name for name in args if not any(_knows(kind, name) for kind in self.dataclass_types)]
        if unknown and not allow_extra_keys:
            raise ArgumentError(" ".join(self._unknown(name) for name in unknown))
        return tuple(
            kind(**{name: value for name, value in args.items() if _knows(kind, name)}) for kind in self.dataclass_types
        )

    def parse_json_file(self, json_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """Return an object of each dataclass from a JSON file."""
        try:
            values = json.loads(Path(json_file).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ArgumentError(f"{json_file} is no JSON: {error}.") from None
        return self.parse_dict(_mapping(json_file, values), allow_extra_keys)

    def parse_yaml_file(self, yaml_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """Return an object of each dataclass from a YAML file. Here 5e-5 is a number, as in YAML 1.2."""
        import yaml

        class Loader(yaml.SafeLoader):
            """Reads numbers with an exponent and no point as numbers."""

        Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
        try:
            values = yaml.load(Path(yaml_file).read_text(encoding="utf-8"), Loader)
        except yaml.YAMLError as error:
            raise ArgumentError(f"{yaml_file} is no YAML: {error}.") from None
        return self.parse_dict(_mapping(yaml_file, values), allow_extra_keys)


def _mapping(file: str | os.PathLike[str], values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ArgumentError(f"{file} holds no settings: write 'name: value' pairs.")
    return values


ArgumentsParser = HfArgumentParser
