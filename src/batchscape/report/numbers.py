"""Number formatting of the report: three significant digits, or as many digits of a mean as its spread allows."""

import math
from collections.abc import Callable, Sequence

import pandas as pd

MISSING = "–"
MAX_DIGITS = 8
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float) -> str:
    """Format with three significant digits; nan is `–` and infinity `∞`."""
    if pd.isna(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    if not -4 <= magnitude < 6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return _with_minus_sign(f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}")
    text = f"{value:.{max(2 - magnitude, 0)}f}"
    return _with_minus_sign(text.rstrip("0").rstrip(".") if "." in text else text)


def format_mean_sd(mean: float, sd: float) -> str:
    """Format as `mean ± sd` with two digits of the standard deviation, or the mean alone if `sd` is nan.

    Large and small numbers share a power of ten. A mean that would have more than `MAX_DIGITS` digits has three.
    """
    if pd.isna(sd) or not math.isfinite(mean):
        return format_number(mean)
    if sd == 0 or math.isinf(sd):
        return f"{format_number(mean)} ± {format_number(sd)}"
    last = math.floor(math.log10(float(f"{sd:.1e}"))) - 1
    first = math.floor(math.log10(max(abs(mean), float(f"{sd:.1e}"))))
    if first - last >= MAX_DIGITS:
        return f"{format_number(mean)} ± {format_number(sd)}"
    if -4 <= first < 6:
        return _with_minus_sign(f"{mean:.{max(-last, 0)}f} ± {sd:.{max(-last, 0)}f}")
    mean, sd, digits = mean / 10.0**first, sd / 10.0**first, first - last
    return f"({_with_minus_sign(f'{mean:.{digits}f} ± {sd:.{digits}f}')}) × 10{str(first).translate(_SUPERSCRIPTS)}"


def format_interval(low: float, high: float, lowest: float = -math.inf) -> str:
    """Format the two ends of an interval; the upper one alone if the lower one is below the lowest possible value.

    A t interval of few seeds may extend to values that the quantity cannot have, so it is no bound on this side.
    """
    if low < lowest:
        return f"up to {format_number(high)}"
    return f"{format_number(low)} to {format_number(high)}"


def format_range(values: pd.Series, format_value: Callable[[float], str] = format_number) -> str:
    """Format the minimum and the maximum of `values`; as one number if both read the same."""
    return " to ".join(dict.fromkeys(format_value(end) for end in (values.min(), values.max())))


def join_truncated(words: Sequence[str], max_words: int) -> str:
    """Join words with commas; those beyond `max_words` are only counted."""
    remaining = len(words) - max_words
    return ", ".join(words[:max_words]) + (f" and {remaining} more" if remaining > 0 else "")


def _with_minus_sign(text: str) -> str:
    return text.replace("-", "−")
