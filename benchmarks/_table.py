"""One table a benchmark; its last columns are the ratio, what is required of it, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Requirement:
    """A bound on a ratio."""

    sign: str
    bound: float

    def met_by(self, ratio: float) -> bool:
        """Whether the ratio keeps to the bound; NaN never does."""
        return ratio >= self.bound if self.sign == ">=" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def at_least(bound: float) -> Requirement:
    return Requirement(">=", bound)


def at_most(bound: float) -> Requirement:
    return Requirement("<=", bound)


class Report:
    """Rows of a benchmark, and whether all that is required of them is met."""

    def __init__(self, title: str, *columns: str) -> None:
        self.met = True
        self._table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            self._table.add_column(column, justify="right" if number else "left")
        for column in ("ratio", "required", ""):
            self._table.add_column(column, justify="right")

    def add(self, *cells: str, ratio: float | None, required: Requirement | None = None) -> None:
        """Add a row; without a requirement it is for information, without a ratio it was not measured."""
        verdict = ""
        if ratio is None:
            verdict = "not measured"
        elif required is not None:
            met = required.met_by(ratio)
            self.met &= met
            verdict = "[green]ok[/green]" if met else "[bold red]MISSED[/bold red]"
        shown = "" if ratio is None else f"{ratio:.3g}"
        self._table.add_row(*cells, shown, "" if required is None else str(required), verdict)

    def show(self) -> bool:
        """Print the table, and say whether everything required is met."""
        console = Console(highlight=False)
        # Cut lines are of no use in a log, whatever width it claims to have.
        console.width = max(console.width, console.measure(self._table).minimum, 140)
        console.print(self._table)
        return self.met
