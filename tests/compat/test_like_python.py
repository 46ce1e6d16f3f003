"""`surestep exec script.py` is `python script.py` in all that a script, its caller and its children can see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from surestep.compat import installing
from tests.compat.running import SOURCE, Ended, execute, python

# What takes the place of a module shows who serves; this one imports little.
WHO = 'import transformers.hf_argparser as found\nprint("FACTS", json.dumps({"trainer": type(found).__name__}))\n'
SEEN = """
import builtins, json, os, sys
main = sys.modules["__main__"]
print("FACTS", json.dumps({
    "argv": sys.argv, "name": __name__, "file": __file__, "path": sys.path, "folder": os.getcwd(),
    "spec": repr(main.__spec__ and main.__spec__.origin), "package": __package__,
    "doc": __doc__, "main": main.__dict__ is globals(),
    "cached": __cached__, "builtins": __builtins__ is builtins, "flags": list(sys.flags), "options": sys.warnoptions,
    "first": sorted(name for name in globals() if not name.startswith("__")), "buffered": sys.stdout.write_through,
}))
"""
ENDINGS = {
    "nothing": "pass",
    "exit code": "import sys; sys.exit(7)",
    "exit message": "import sys; sys.exit('gone')",
    "error": "def inner():\n    raise ValueError('mine')\ninner()",
    "error in a chain": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error",
    "syntax": "def broken(:\n    pass",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(60)",
    "exit at once": "import os; os._exit(9)",
    "at exit": "import atexit; atexit.register(print, 'bye'); raise SystemExit(3)",
}


def without_greeting(ended: Ended) -> Ended:
    lines = [line for line in ended.err.splitlines() if " serves the Trainer of " not in line]
    return Ended(ended.code, ended.out, "\n".join(lines))


@pytest.mark.parametrize("text", ENDINGS.values(), ids=ENDINGS.keys())
def test_it_ends_as_it_would(tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(text + "\n")
    theirs, ours = python(script, folder=tmp_path), without_greeting(execute(script, folder=tmp_path))

    assert ours == Ended(theirs.code, theirs.out, theirs.err.rstrip("\n"))


@pytest.mark.parametrize("options", [[], ["-u", "-W", "error", "-O", "-X", "utf8"]], ids=["plain", "options"])
def test_it_sees_what_it_would(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "script.py").write_text(SEEN)
    words = ["script.py", "--check", "-m", "--help", "--", "x y"]
    theirs = python(*options, *words, folder=tmp_path)
    ours = python(*options, "-m", "surestep", "exec", *words, folder=tmp_path)

    assert ours.code == 0, ours.err
    assert ours.facts == theirs.facts


def test_a_module_is_run_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "tool.py").write_text(SEEN)
    theirs = python("-m", "package.tool", "--check", folder=tmp_path)
    ours = execute("-m", "package.tool", "--check", folder=tmp_path)

    assert ours.facts == theirs.facts


def test_a_script_may_come_on_standard_input_and_read_it(tmp_path: Path) -> None:
    from_input = execute("-", "word", folder=tmp_path, said=f"import json, sys\n{WHO}print(sys.argv)\n")
    assert from_input.facts["trainer"] == "StandIn"
    assert "['-', 'word']" in from_input.out

    (tmp_path / "script.py").write_text("import sys\nprint(sys.stdin.read().upper())\n")
    assert execute("script.py", folder=tmp_path, said="abc").out == "ABC\n"


def test_a_signal_reaches_the_script_in_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "surestep", "exec", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 5


CHILDREN = {
    "subprocess": 'subprocess.run([sys.executable, "child.py"], check=True)',
    "shell": "subprocess.run(f'{sys.executable} child.py', shell=True, check=True)",
    "elsewhere": 'subprocess.run([sys.executable, os.path.abspath("child.py")], cwd="/", check=True)',
    "module": 'subprocess.run([sys.executable, "-m", "child"], check=True)',
    "torchrun": 'subprocess.run([sys.executable, "-m", "torch.distributed.run", "child.py"], check=True)',
    "exec again": 'subprocess.run([sys.executable, "-m", "surestep", "exec", "child.py"], check=True)',
    "system": 'os.system(f"{sys.executable} child.py")',
}
PROCESSES = """
import json, multiprocessing, os, sys

def told(queue):
    import transformers.hf_argparser
    queue.put(type(transformers.hf_argparser).__name__)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=told, args=(queue,))
    process.start()
    found = queue.get()
    process.join()
    print("FACTS", json.dumps({"trainer": found}))
"""


@pytest.mark.parametrize("start", CHILDREN.values(), ids=CHILDREN.keys())
def test_a_child_is_served_as_well(tmp_path: Path, start: str) -> None:
    (tmp_path / "child.py").write_text(f"import json\n{WHO}")
    (tmp_path / "script.py").write_text(f"import os, subprocess, sys\n{start}\n")
    ended = execute("script.py", folder=tmp_path)

    assert ended.facts["trainer"] == "StandIn", ended.err


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_process_of_multiprocessing_is_served_as_well(tmp_path: Path, method: str) -> None:
    (tmp_path / "script.py").write_text(PROCESSES)

    assert execute("script.py", method, folder=tmp_path).facts["trainer"] == "StandIn"


def test_ranks_of_torchrun_are_served(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        f"import json, os\n{WHO}print('FACTS', json.dumps({{'world': os.environ['WORLD_SIZE']}}))\n"
    )
    ended = python(
        *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "surestep", "exec", "child.py"],
        folder=tmp_path,
    )

    assert ended.facts == {"trainer": "StandIn", "world": "1"}, ended.err


def test_the_sitecustomize_of_the_user_runs_too(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os\nos.environ['MINE'] = __file__\n")
    (tmp_path / "script.py").write_text(
        "import json, os, sys\n"
        "facts = {'mine': os.environ['MINE'], 'loaded': sys.modules['sitecustomize'].__file__}\n"
        "print('FACTS', json.dumps(facts))\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(SOURCE)])
    ended = execute("script.py", folder=tmp_path, PYTHONPATH=path)

    assert ended.facts["mine"] == ended.facts["loaded"] == str(tmp_path / "site" / "sitecustomize.py")


def test_the_sources_go_onto_the_path_where_children_would_not_find_them(monkeypatch: pytest.MonkeyPatch) -> None:
    startup = str(SOURCE / "surestep" / "compat" / "startup")
    given = {"PYTHONPATH": os.pathsep.join(["", "/mine"])}

    monkeypatch.setattr(sys, "path", ["/script", str(SOURCE)])
    found = dict(given)
    installing.extend(found)
    assert found["PYTHONPATH"].split(os.pathsep) == [startup, "", "/mine"]

    monkeypatch.setattr(sys, "path", [str(SOURCE), "/library"])
    beside = dict(given)
    installing.extend(beside)
    assert beside["PYTHONPATH"].split(os.pathsep) == [str(SOURCE), startup, "", "/mine"]

    for environment in (found, beside):
        before = dict(environment)
        installing.extend(environment)
        assert environment == before, "a second time adds nothing"
        installing.withdraw(environment)
        assert environment == given
        installing.withdraw(environment)
        assert environment == given


def test_an_environment_without_a_path_has_none_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/script", str(SOURCE)])
    environment = {"HOME": "/"}
    installing.extend(environment)
    assert environment["PYTHONPATH"] == str(SOURCE / "surestep" / "compat" / "startup")
    installing.withdraw(environment)
    assert environment == {"HOME": "/"}


def test_options_that_hide_the_environment_are_refused(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from surestep.compat.__main__ import main; main(['x.py'])"
    )
    ended = python("-E", "-c", program, folder=tmp_path)

    assert ended.code == 1
    assert "-E, -I or -S" in ended.err


def test_another_python_without_surestep_says_who_trains(tmp_path: Path) -> None:
    startup = SOURCE / "surestep" / "compat" / "startup"
    (tmp_path / "transformers.py").write_text("Trainer = int\n")
    program = "import json; print('FACTS', json.dumps({}))\n"
    alone = python("-S", "-c", f"import sitecustomize\n{program}", folder=tmp_path, PYTHONPATH=str(startup))
    with_it = python(
        "-S", "-c", f"import sitecustomize, transformers\n{program}", folder=tmp_path, PYTHONPATH=str(startup)
    )

    assert "surestep" not in alone.err
    assert "cannot import surestep" in with_it.err
    assert json.loads(with_it.out.removeprefix("FACTS")) == {}
