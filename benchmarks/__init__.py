"""The figures behind the README. `python -m benchmarks` prints all of them, `python -m benchmarks.<name>` one."""
