"""The paper about a large sweep holds what its script computes."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper():
    found = importlib.util.spec_from_file_location("on_paper", ROOT / "benchmarks" / "on_paper.py")
    module = importlib.util.module_from_spec(found)
    sys.modules["on_paper"] = module
    found.loader.exec_module(module)
    yield module
    del sys.modules["on_paper"]


def test_the_page_has_the_tables(paper):
    page = (ROOT / "docs" / "scaling.md").read_text()
    for line in paper.lines():
        assert line in page


def test_bytes_are_those_of_a_model_of_70_b(paper):
    # Its vectors, layer norms, are all that is left out.
    assert sum(paper.BYTES.values()) / 2 == pytest.approx(70.55e9, rel=1e-3)


def test_the_limit_is_the_slowest(paper):
    tower = paper.TOWERS[0]
    one, limit = paper.hours(tower, 1, ahead=True)
    assert limit == "cores"
    assert one == pytest.approx(500 * tower.cpu_seconds / 16 / 3600)
    many, limit = paper.hours(tower, 1000, ahead=True)
    assert limit == "driver"
    assert many == pytest.approx(500 * 3566 / 75 / 3600)
