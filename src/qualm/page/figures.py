"""Numbers as people read them. Used by the page and by the Markdown alike, so that the two agree."""

from math import ceil, floor, log10

MINUS = "−"
NONE = "–"
FINE = {"bits per byte", "nats", "nats per token"}  # always three decimals


def places(unit: str, low: float, high: float) -> int:
    """How many decimals an interval deserves: shares 0 or 1 (of a percent), others about two figures of its width."""
    width = abs(high - low)
    if unit == "share":
        return 0 if width >= 0.05 else 1
    if unit in FINE:
        return 3
    size = width or max(abs(low), abs(high)) / 10 or 1.0
    return min(3, max(0, 2 - ceil(log10(size))))


def figure(value: float | None, unit: str, digits: int) -> str:
    """A value with its percent sign or prefix (other units stand beside it); a small share is never rounded to 0."""
    if value is None:
        return NONE
    if unit == "share":
        step = 10.0**-digits
        percent = 100 * value
        if 0 < percent < step / 2:
            return f"<{step:.{digits}f}%"
        if 100 - step / 2 < percent < 100:
            return f">{100 - step:.{digits}f}%"
        return f"{_signed(percent, digits)}%"
    if unit == "bytes":
        return size(value)
    return _signed(value, digits)


def between(low: float | None, high: float | None, unit: str, digits: int, to: str = "to") -> str:
    """An interval, the unit written once, and the number once where its ends print alike."""
    if low is None or high is None:
        return NONE
    sign = "%" if unit == "share" else ""
    ends = [size(x) if unit == "bytes" else _signed(100 * x if sign else x, digits) for x in (low, high)]
    return f" {to} ".join(dict.fromkeys(ends)) + sign


def difference(value: float | None, unit: str, digits: int) -> str:
    """A signed change; of shares in percentage points, whose name is left to the caller."""
    if value is None:
        return NONE
    if unit == "bytes":
        return ("+" if value > 0 else "") + size(value)
    text = _signed(100 * value if unit == "share" else value, digits)
    return text if text.startswith(MINUS) or not text.strip("0.,") else f"+{text}"


def differences(low: float | None, high: float | None, unit: str, digits: int, to: str = "to") -> str:
    if low is None or high is None:
        return NONE
    return f" {to} ".join(dict.fromkeys(difference(x, unit, digits) for x in (low, high)))


def plain(value: float | None) -> str:
    """Three figures of a number without a unit; two of a small one."""
    if value is None:
        return NONE
    amount = abs(value)
    if 0 < amount < 0.0995:
        return _signed(value, min(9, 1 - floor(log10(amount))))
    return _signed(value, 0 if amount >= 99.95 else 1 if amount >= 9.995 else 2 if amount >= 0.9995 else 3)


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def size(count: float) -> str:
    """Bytes in steps of a thousand: 4.4 MB."""
    sign, amount = (MINUS if count < 0 else ""), abs(count)
    for name in ("B", "kB", "MB", "GB"):
        if amount < 999.5 or name == "GB":
            return f"{sign}{amount:.{0 if name == 'B' or amount >= 99.5 else 1}f} {name}"
        amount /= 1000
    raise AssertionError("unreachable")


def many(count: float) -> str:
    """A large count in few figures: 1.1 M."""
    for bound, name in ((1e9, " B"), (1e6, " M"), (1e4, " k")):
        if count >= bound:
            scaled = count / (1e3 if name == " k" else bound)
            return f"{scaled:.{0 if scaled >= 99.5 else 1}f}{name}"
    return f"{count:,.0f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.,") else text
