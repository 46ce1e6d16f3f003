"""Starting a function of a test on several ranks: real processes that talk through gloo."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from tests.warm import server

ROOT = Path(__file__).resolve().parents[2]
# Torch's own threads sometimes abort a process that has ended: its work is done and written by then.
_ENDED = (0, -6)


def launch(module: str, size: int, folder: Path, *arguments: str, seconds: int = 240) -> list[dict[str, Any]]:
    """Call `module.work(folder, *arguments)` on `size` ranks and return what each rank's call returned, by rank.

    What is returned is any nesting of dicts, lists, tensors, numbers and texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    words = ["-W", "ignore", "-m", __name__, module, str(folder), *arguments]
    running = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "PYTHONPATH": path}
        running.append(server().start(words, env={**os.environ, **common, **place}, cwd=folder, merged=True))
    try:
        codes = [process.wait(seconds) for process in running]
    finally:
        for process in running:
            process.kill()
    told = [process.communicate()[0] for process in running]
    for rank, text in enumerate(told):
        (folder / f"rank{rank}.txt").write_text(text)
    said = "\n".join(told)
    results = [folder / f"rank{rank}.pt" for rank in range(size)]
    assert all(code in _ENDED for code in codes), f"{codes}\n{said}"
    assert all(path.exists() for path in results), said
    return [torch.load(path, weights_only=True) for path in results]


def _main() -> None:
    module, folder, *arguments = sys.argv[1:]
    result = importlib.import_module(module).work(Path(folder), *arguments)
    path = Path(folder) / f"rank{os.environ['RANK']}"
    torch.save(result, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path.with_suffix(".pt"))


if __name__ == "__main__":
    _main()
