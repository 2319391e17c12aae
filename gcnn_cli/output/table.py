"""Reports as a table on the terminal."""

from rich.console import Console
from rich.table import Table

from gcnn_cli.detection.findings import Report
from gcnn_cli.output.rates import rate_text


def show_report(report: Report, console: Console) -> None:
    """Print the nodules as a table, or a line when there are no nodules."""
    if not report.nodules:
        console.print(
            f"No nodules at or above probability {report.threshold:g}"
            f" in {report.scan.source.path} ({report.candidates} candidates scored{_lungs(report)}).",
            highlight=False,
            soft_wrap=True,
        )
        return
    table = Table(title=f"{report.scan.source.path}{_lungs(report)}", title_justify="left", title_style="bold")
    for heading in ("#", "x mm", "y mm", "z mm", "slice", "diameter mm", "probability", "FPs/scan"):
        table.add_column(heading, justify="right")
    for number, nodule in enumerate(report.nodules, start=1):
        x, y, z = nodule.position_mm
        table.add_row(
            str(number),
            f"{x:.1f}",
            f"{y:.1f}",
            f"{z:.1f}",
            str(nodule.slice),
            f"{nodule.diameter_mm:.1f}",
            f"{nodule.probability:.3f}",
            rate_text(nodule.fp_per_scan),
        )
    console.print(table)


def _lungs(report: Report) -> str:
    return "" if report.lungs_ml is None else f", lungs {report.lungs_ml:.0f} mL"
