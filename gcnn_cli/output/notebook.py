"""A report in a notebook: the table of its nodules and their pictures, as HTML without scripts."""

import base64
from html import escape

from gcnn_cli import NOTICE
from gcnn_cli.detection.findings import Report
from gcnn_cli.output.pictures.montage import png_montage
from gcnn_cli.output.rates import rate_text
from gcnn_cli.scan.volume import Volume

_HEADINGS = ("nodule", "x mm", "y mm", "z mm", "slice", "diameter mm", "probability", "FPs/scan")


def notebook_html(report: Report, volume: Volume) -> str:
    """Return the fragment. volume: the scan of the report."""
    rows = (
        (
            number,
            *(f"{value:.1f}" for value in nodule.position_mm),
            nodule.slice,
            f"{nodule.diameter_mm:.1f}",
            f"{nodule.probability:.3f}",
            rate_text(nodule.fp_per_scan),
        )
        for number, nodule in enumerate(report.nodules, start=1)
    )
    body = "".join(_row("td", cells) for cells in rows)
    picture = base64.b64encode(png_montage(report, volume)).decode("ascii")
    return (
        f"<p><b>{escape(report.scan.source.series_uid)}</b>: {_count(report)} at or above probability"
        f" {report.threshold:.3g} (weights {escape(report.model.name)}). {escape(NOTICE)}</p>"
        f"<table><thead>{_row('th', _HEADINGS)}</thead><tbody>{body}</tbody></table>"
        f'<img alt="maps of the lungs and three planes through each nodule" src="data:image/png;base64,{picture}">'
    )


def _count(report: Report) -> str:
    found = len(report.nodules)
    return f"{found or 'no'} {'nodule' if found == 1 else 'nodules'}"


def _row(kind: str, cells: tuple[object, ...]) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
