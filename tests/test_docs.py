from pathlib import Path

import pytest

from rct_ray.results.schema import TABLES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("table", TABLES)
def test_the_column_page_says_what_the_schema_says(table):
    page = (ROOT / "docs" / "columns.md").read_text()
    section = page.split(f"\n## {table}\n")[1].split("\n## ")[0]
    for field in TABLES[table]:
        kind = str(field.type).replace("element: ", "").replace(" not null", "")
        null = "yes" if field.nullable else ""
        description = field.metadata[b"description"].decode()
        assert f"| `{field.name}` | {kind} | {null} | {description} |" in section


def test_the_readme_gives_the_commands_that_ci_calls():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("make demo", "make test"):
        assert command in readme
        assert command in ci
