import json

from tests.unit.config.freeze import SURFACE, surface


def test_the_public_surface_is_the_one_written_down():
    written = json.loads(SURFACE.read_text(encoding="utf-8"))
    # Where this fails on purpose: python -m tests.unit.config.freeze, and a news fragment.
    assert json.loads(json.dumps(surface())) == written
