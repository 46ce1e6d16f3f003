"""Methods of the original that nothing serves yet: there by name, so that what is asked for is said."""

from __future__ import annotations

from typing import Any, NoReturn

from surestep.errors import NotServedError


def _refuse(name: str, row: str, instead: str) -> NoReturn:
    raise NotServedError(f"Trainer.{name} is not served yet (scope row {row}). {instead}")


class UnservedPoints:
    """What comes later: the hub."""

    def init_hf_repo(self, *_: Any, **__: Any) -> NoReturn:
        """Create a repository on the hub; not served yet."""
        _refuse("init_hf_repo", "B1", "Create it with huggingface_hub.create_repo.")

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:
        """Upload the model; not served yet."""
        _refuse("push_to_hub", "B1", "Call save_model() and upload the folder with huggingface_hub.upload_folder.")
