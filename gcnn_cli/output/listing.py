"""Rows of plain data as a table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show_rows(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table with a column per key of the first row, or a line when there are no rows."""
    if not rows:
        console.print("nothing found")
        return
    table = Table()
    for key in rows[0]:
        table.add_column(key.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key.replace('_', ' ')} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " x ".join(_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
