"""The one place that asks whether an optional package is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from functools import cache
from types import ModuleType

from surestep.errors import MissingPackageError

# Import names whose package on the index is called otherwise.
_PIP_NAMES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "schedulefree": "schedulefree",
    "liger_kernel": "liger-kernel",
    "galore_torch": "galore-torch",
    "apollo_torch": "apollo-torch",
    "optimi": "torch-optimi",
    "lomo_optim": "lomo-optim",
    "azureml": "azureml-core",
    "comet_ml": "comet-ml",
    "flytekitplugins": "flytekitplugins-deck-standard",
}


# Packages that come with an extra of ours.
_EXTRAS = {"libcst": "'surestep[migrate]'", "fsspec": "'surestep[remote]'"}


@cache
def installed(module: str) -> bool:
    """Say whether `module` can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def version(package: str) -> tuple[int, ...]:
    """Return the leading numbers of an installed package's version, or `()` where it is not installed."""
    try:
        text = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ()
    numbers: list[int] = []
    for part in text.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional `module`, or raise and name the package to install and what it is needed for."""
    top = module.partition(".")[0]
    package = _PIP_NAMES.get(top, top)
    if not installed(top):
        raise MissingPackageError(
            f"{purpose} needs the package '{package}', which is not installed. Install it with: pip install "
            f"{_EXTRAS.get(top, package)}"
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package '{package}', which is installed but cannot be imported: {error}"
        ) from error
