"""Units: constants, and sizes as people type and read them.

Inside the package, every quantity is in base units (bytes, seconds, FLOP). These helpers serve the
interfaces, where people type ``8K`` and read ``69.3 GB``.
"""

import math
import re
import reprlib

from simulator.errors import InputError

KILO, MEGA, GIGA, TERA, PETA = 1e3, 1e6, 1e9, 1e12, 1e15
KIB, MIB, GIB = 2**10, 2**20, 2**30
NANOSECOND, MICROSECOND, MILLISECOND = 1e-9, 1e-6, 1e-3

# As in vLLM's integer flags: a lower-case letter is decimal, a capital one binary.
_COUNT_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
# Commas and underscores separate only thousands: 16,32 is a list, not 1632.
_COUNT = re.compile(r"(\d+|\d{1,3}(?:[,_]\d{3})+)(?:\.(\d+))?([kmgKMG]?)")
# Digits and commas; Python refuses to read a number of thousands of digits.
_LONGEST_COUNT = 100


def parse_count(text: str | int) -> int:
    """Read a count as people type it.

    ``8k`` is 8000 and ``8K`` is 8192, as vLLM reads them.

    Raises
    ------
    InputError
        If the text is not a whole, non-negative count.

    Examples
    --------
    >>> parse_count("8k"), parse_count("8K"), parse_count("1.5K"), parse_count("128")
    (8000, 8192, 1536, 128)
    """
    match = _COUNT.fullmatch(str(text).strip())
    if match is None or len(match[0]) > _LONGEST_COUNT:
        raise InputError(f"{reprlib.repr(text)} is not a count; write 8192, 8K (8192) or 8k (8000)")
    whole, fraction, suffix = match.groups(default="")
    whole = whole.replace(",", "").replace("_", "")
    # Integer arithmetic, because 1.005 x 1000 is not 1005 in floating point.
    parts: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * _COUNT_SUFFIXES[suffix], parts)
    if rest:
        raise InputError(f"{text!r} is not a whole number")
    return value


def is_power_of_two(size: float) -> bool:
    """Return whether a size is 1, 2, 4, 8 and so on.

    >>> is_power_of_two(8192), is_power_of_two(0.5), is_power_of_two(6)
    (True, False, False)
    """
    return size >= 1 and int(size) & (int(size) - 1) == 0


def format_si(value: float, unit: str) -> str:
    """Format a quantity with a decimal prefix and three significant digits.

    Parameters
    ----------
    value
        The quantity, in ``unit``.
    unit
        The unit without a prefix, such as ``B`` or ``FLOP/s``.

    Examples
    --------
    >>> format_si(69_256_347_648, "B")
    '69.3 GB'
    >>> format_si(0, "B")
    '0 B'
    """
    if not math.isfinite(value):
        return f"{value} {unit}"
    for factor, prefix in zip((1e18, PETA, TERA, GIGA, MEGA, KILO), "EPTGMk", strict=True):
        if abs(value) >= factor:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def format_time(seconds: float) -> str:
    """Format a time in a suitable unit.

    >>> format_time(0.01234), format_time(4.2e-6), format_time(90)
    ('12.3 ms', '4.20 µs', '90.0 s')
    """
    if not math.isfinite(seconds):
        return f"{seconds} s"
    for unit, name in ((1, "s"), (MILLISECOND, "ms")):
        if abs(seconds) >= unit:
            return f"{significant(seconds / unit)} {name}"
    return f"{significant(seconds / MICROSECOND)} µs"


def format_gib(number_of_bytes: float) -> str:
    """Format memory in GiB, as nvidia-smi shows it, or in MiB below a tenth of a GiB.

    >>> format_gib(2**34), format_gib(2**25)
    ('16.0 GiB', '32 MiB')
    """
    if 0 < number_of_bytes < GIB / 10:
        return f"{math.ceil(number_of_bytes / MIB):,} MiB"
    return f"{number_of_bytes / GIB:,.1f} GiB"


def format_tokens(tokens: int) -> str:
    """Format a token count, in binary thousands or millions if exact.

    >>> format_tokens(8192), format_tokens(8000), format_tokens(64), format_tokens(2**20)
    ('8K', '8,000', '64', '1M')
    """
    if tokens >= MIB and tokens % MIB == 0:
        return f"{tokens // MIB}M"
    if tokens >= KIB and tokens % KIB == 0:
        return f"{tokens // KIB}K"
    return f"{tokens:,}"


def significant(value: float, digits: int = 3) -> str:
    """Format a number with the given significant digits, without an exponent below a million."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
