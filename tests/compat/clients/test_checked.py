"""`surestep exec --check` on the scripts of these tests: it finds nothing that would be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from surestep.compat.finding import Verdict
from surestep.compat.reading import read_script
from surestep.compat.verdicts import all_findings
from tests.compat.clients.harness import SCRIPTS, needs

needs("transformers")


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_that_a_script_takes_is_refused(script: Path) -> None:
    assert [finding for finding in all_findings(read_script(script)) if finding.verdict is Verdict.REFUSED] == []
