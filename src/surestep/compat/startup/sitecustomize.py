"""What Python runs at its start, found through PYTHONPATH: wait for the original, then run the user's own file.

Every Python that a script starts runs this, of whatever version, and with or without surestep. It is therefore written
for all of them, imports nothing of its own, and costs a program that never imports the original nothing to speak of.
"""

import sys


class _Waiting:
    """Stands on `sys.meta_path` until the original is imported, and then puts the finder of surestep in place."""

    awaits_the_original = True

    def find_spec(self, name, _path=None, _target=None):  # type: ignore[no-untyped-def]
        """Find nothing, ever."""
        if name == "transformers":
            sys.meta_path.remove(self)
            try:
                from surestep.compat.installing import put_in_place
            except ImportError as error:
                text = f"{sys.executable} cannot import surestep ({error}): the original trains here.\n"
                sys.stderr.write(text)
            else:
                put_in_place()


def _take_out_of_path() -> None:
    """Leave this folder to the environment: the script sees the path that it would see without it."""
    here = __file__.replace("\\", "/").rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry.replace("\\", "/") != here]


def _run_the_next() -> None:
    """Run the file of this name that Python would have run, as Python would have."""
    for finder in sys.meta_path:
        spec = finder.find_spec("sitecustomize", None)
        if spec is not None and spec.loader is not None:
            from importlib.util import module_from_spec

            module = sys.modules["sitecustomize"] = module_from_spec(spec)
            spec.loader.exec_module(module)
            return


sys.meta_path.insert(0, _Waiting())
_take_out_of_path()
_run_the_next()
