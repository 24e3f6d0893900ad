"""Durations as text."""


def format_duration(seconds: float) -> str:
    """Format a duration in the unit that fits: `42.0 s`, `3 min`, `2 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
