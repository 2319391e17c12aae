"""False positives per scan as a person reads them."""

# The lowest rate of stored operating points. Nothing was counted below it, so at this value the rate is a bound.
LOWEST_COUNTED = 0.125


def rate_text(fp_per_scan: float | None) -> str:
    """Return a rate with three digits, marked as a bound where it is one; a dash where it is unknown."""
    if fp_per_scan is None:
        return "-"
    is_bound = fp_per_scan <= LOWEST_COUNTED * (1 + 1e-9)  # rates are read off on a log scale
    return f"{'≤ ' if is_bound else ''}{fp_per_scan:.3g}"
