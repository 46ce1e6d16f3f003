"""Run every benchmark: each module of this package with a `main`."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks


def main() -> None:
    """Print the title and the figures of each."""
    for found in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda module: module.name):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"benchmarks.{found.name}")
        title = (module.__doc__ or found.name).splitlines()[0]
        print(f"\n{title}\n{'-' * len(title)}", flush=True)
        module.main()


if __name__ == "__main__":
    main()
