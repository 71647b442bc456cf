from pathlib import Path

import pytest

from rct_ray.results.schema import FRONTIER, TABLES

ROOT = Path(__file__).parents[1]
PAGES = {**TABLES, "frontier": FRONTIER}


@pytest.mark.parametrize("table", PAGES)
def test_the_column_page_says_what_the_schema_says(table):
    page = (ROOT / "docs" / "columns.md").read_text()
    section = page.split(f"\n## {table}\n")[1].split("\n## ")[0]
    for field in PAGES[table]:
        kind = str(field.type).replace("element: ", "").replace(" not null", "")
        null = "yes" if field.nullable else ""
        description = field.metadata[b"description"].decode()
        assert f"| `{field.name}` | {kind} | {null} | {description} |" in section


def test_the_readme_gives_the_commands_that_ci_calls():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("make demo", "make test"):
        assert command in readme
        assert command in ci


def test_the_report_has_its_picture():
    assert 'src="docs/report.png"' in (ROOT / "README.md").read_text()
    assert (ROOT / "docs" / "report.png").stat().st_size < 150_000


def test_the_frontier_has_its_picture():
    page = (ROOT / "docs" / "frontier.md").read_text()
    assert "(frontier.svg)" in page
    assert "rct-ray frontier rct_ray/data/tiny-step02500.safetensors --plot docs/frontier.svg" in page
    assert "docs/frontier.md" in (ROOT / "README.md").read_text()
    assert (ROOT / "docs" / "frontier.svg").stat().st_size < 150_000
