"""What is installed, and what is said where it is not."""

from __future__ import annotations

import pytest

from surestep.errors import MissingPackageError
from surestep.optional import installed, require, version


@pytest.mark.parametrize(
    ("module", "package"),
    [("no_such_package", "no_such_package"), ("no_such_package.inner", "no_such_package")],
)
def test_a_missing_package_is_named_with_what_it_is_for(module: str, package: str) -> None:
    with pytest.raises(
        MissingPackageError, match=f"reading minds needs the package '{package}'.*pip install {package}"
    ):
        require(module, "reading minds")


def test_the_package_is_named_as_the_index_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surestep.optional.installed", lambda module: False)
    with pytest.raises(MissingPackageError, match="pip install pillow"):
        require("PIL.Image", "reading pictures")
    with pytest.raises(MissingPackageError, match="pip install scikit-learn"):
        require("sklearn.datasets", "the digits")


def test_what_is_there_is_imported() -> None:
    assert installed("json")
    assert require("json.decoder", "JSON").__name__ == "json.decoder"


def test_versions_are_their_leading_numbers() -> None:
    assert version("torch")[:2] >= (2, 13)
    assert version("no-such-package") == ()
