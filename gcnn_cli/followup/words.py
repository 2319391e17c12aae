"""A pair in words, the same in the terminal and on the page."""

from typing import Any

from gcnn_cli.followup.growth import Growth
from gcnn_cli.followup.matching import Pair, Status
from gcnn_cli.followup.run import FollowUp


def pair_rows(made: FollowUp) -> list[dict[str, Any]]:
    """Return one row per nodule, for the terminal."""
    return [
        {
            "#": number,
            "status": status_words(pair),
            "before mm": "-" if pair.prior is None else f"{pair.prior.diameter_mm:.1f}",
            "now mm": "-" if pair.current is None else f"{pair.current.diameter_mm:.1f}",
            "volume": change_words(pair.growth),
            "doubling time": doubling_words(pair.growth),
            "at (now)": "-" if pair.current is None else ", ".join(f"{v:.1f}" for v in pair.current.position_mm),
        }
        for number, pair in enumerate(made.pairs, start=1)
    ]


def status_words(pair: Pair) -> str:
    """Return what became of the nodule."""
    if pair.status is Status.NOT_SHOWN:
        return "outside the earlier scan" if pair.prior is None else "outside the later scan"
    if not pair.faint:
        return str(pair.status)
    below = "before" if pair.prior is not None and pair.current and _fainter(pair) else "now"
    return f"matched, below the threshold {below}"


def change_words(growth: Growth | None) -> str:
    """Return the change of the volume with its interval."""
    if growth is None:
        return "-"
    low, high = growth.percent_interval
    return f"{growth.percent:+.0f} % ({low:+.0f} to {high:+.0f})"


def doubling_words(growth: Growth | None) -> str:
    """Return the doubling time with its interval, or that there is no change beyond the error."""
    if growth is None:
        return "-"
    interval = growth.doubling_interval
    if not growth.is_change:
        least = f", over {abs(interval[0]):.0f} days if any" if interval else ""
        return f"no change beyond the error{least}"
    if interval is None or growth.doubling_days is None or interval[1] is None:
        return "changed; days unknown"
    name = "days" if growth.doubling_days > 0 else "days to half"
    return f"{abs(growth.doubling_days):.0f} {name} ({abs(interval[0]):.0f} to {abs(interval[1]):.0f})"


def _fainter(pair: Pair) -> bool:
    """Return True if the prior finding is the less probable one."""
    return pair.prior is not None and pair.current is not None and pair.prior.probability < pair.current.probability
