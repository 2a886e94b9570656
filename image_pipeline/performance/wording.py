"""Times, rates and shares in words."""

from __future__ import annotations

from datetime import date


def duration(seconds: float | None) -> str:
    """``340 ms``, ``12.4 s``, ``5 min 12 s``, ``3 h 20 min``, ``4 days 6 h``; a dash for None."""
    if seconds is None:
        return "\u2013"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}\u00a0ms"
    if seconds < 59.95:
        return f"{seconds:.1f}\u00a0s"
    return _long(round(seconds))


def _long(seconds: int) -> str:
    for size, unit, part, smaller in (
        (86_400, "days", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"),
    ):  # fmt: skip
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            name = "day" if (unit, whole) == ("days", 1) else unit
            return f"{whole}\u00a0{name} {rest // part}\u00a0{smaller}"
    return f"{seconds}\u00a0s"


def times(ratio: float) -> str:
    """``2.4 times``; below one it is said by how much less."""
    return f"{ratio:.1f} times" if ratio >= 1 else f"{1 - ratio:.0%} less than"


def share(value: float | None) -> str:
    """``12.5 %``; a dash for None."""
    return "\u2013" if value is None else f"{100 * value:.1f}\u00a0%"


def rate(value: float | None) -> str:
    """Images per second with three digits or more; a dash for None."""
    if value is None:
        return "\u2013"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def day_name(day: date) -> str:
    """``Tuesday, 17 November 2026``."""
    return f"{day:%A}, {day.day} {day:%B %Y}"
