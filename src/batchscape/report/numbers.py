"""Numbers as a report writes them: three significant digits, and no more digits of a mean than its spread allows."""

import math
from collections.abc import Sequence

import pandas as pd

MISSING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float) -> str:
    """Return three significant digits, `–` for what is no number, `∞` for what is infinite."""
    if pd.isna(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    if not -4 <= size < 6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return _signed(f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}")
    text = f"{value:.{max(2 - size, 0)}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def format_mean_sd(mean: float, sd: float) -> str:
    """Return `mean ± sd` with two digits of the spread; the mean alone if there is no spread."""
    if pd.isna(sd) or not math.isfinite(mean):
        return format_number(mean)
    if not (1e-4 <= sd < 1e6 and abs(mean) < 1e6):
        return f"{format_number(mean)} ± {format_number(sd)}"
    digits = max(1 - math.floor(math.log10(float(f"{sd:.1e}"))), 0)
    return _signed(f"{mean:.{digits}f} ± {sd:.{digits}f}")


def format_interval(low: float, high: float) -> str:
    return f"{format_number(low)} to {format_number(high)}"


def join_truncated(words: Sequence[str], most: int) -> str:
    """Return words in a row; beyond `most` of them, how many more there are."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def _signed(text: str) -> str:
    return text.replace("-", "−")
