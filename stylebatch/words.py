"""Numbers as people read them, with their units; values as people write them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 style`, `2,000 styles`, `2 classes`, `3 copies`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """`styles`, `classes`, `copies`."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in ("a", "e", "o", "u"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def is_or_are(number: int) -> str:
    """What agrees with that many."""
    return "is" if number == 1 else "are"


def size(size_bytes: int) -> str:
    """Decimal units: 999 B, 1.5 kB, 2.0 GB."""
    amount, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def written(value: object) -> str:
    """As a manifest has it: `[cat, dog]`, `[0.5, 2.0]`, `cat`."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table whose first row holds the heads: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
