"""A calculator for text that a model wrote: exact, bounded in time and size, and unable to do anything else.

Only digits, points, parentheses and `+ - * / // % **` reach the parser; of its tree only numbers and these
operations are computed, on exact fractions, with every result bounded before it is made.
"""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

from qualm.errors import QualmError

MAX_LENGTH, MAX_DEPTH, MAX_BITS = 200, 40, 1024  # characters, nested operations, bits of a numerator or denominator
DIGITS = 12  # significant digits of a result that no decimal can hold

_WRITTEN = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "（": "(", "）": ")", "^": "**"})
_TIMES = re.compile(r"(?<=[\d) ])[xX](?=[\d( ])")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")
_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
_ALLOWED = re.compile(r"[0-9.+\-*/%() ]+")


class Refused(QualmError, ValueError):
    """An expression that is no bounded arithmetic."""


def evaluate(expression: str) -> str:
    """The value: whole numbers and finite decimals exactly, others to 12 significant digits.

    Takes at most a few milliseconds whatever it is given. `x`, `×`, `·`, `÷`, `−` and `^` are read as written by
    people, and so are thousands commas. Raises Refused for anything else, for division by zero, and for results
    or exponents beyond 1024 bits.

    >>> evaluate("12 + 34"), evaluate("7 / 2"), evaluate("3 × (0.1 + 0.2)"), evaluate("1/3")
    ('46', '3.5', '0.9', '0.333333333333')
    """
    if len(expression) > MAX_LENGTH:
        raise Refused(f"an expression may have {MAX_LENGTH} characters")
    text = _TIMES.sub("*", expression.translate(_WRITTEN))
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _LEADING_ZEROS.sub("", text).strip()
    if not _ALLOWED.fullmatch(text):
        raise Refused(f"not arithmetic: {expression!r}")
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise Refused(f"not arithmetic: {expression!r}") from error
    return _written(_value(tree, text, 0))


def _value(node: ast.expr, text: str, depth: int) -> Fraction:
    if depth > MAX_DEPTH:
        raise Refused(f"nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=int() | float()):
            return _bounded(Fraction(text[node.col_offset : node.end_col_offset].rstrip(".")))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = _value(node.operand, text, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            left, right = _value(node.left, text, depth + 1), _value(node.right, text, depth + 1)
            return _bounded(Fraction(_OPERATIONS[type(node.op)](left, right)))
    raise Refused(f"not arithmetic: {text!r}")


def _divided(by: Callable[[Fraction, Fraction], Fraction | int]) -> Callable[[Fraction, Fraction], Fraction | int]:
    def operation(left: Fraction, right: Fraction) -> Fraction | int:
        if right == 0:
            raise Refused("division by zero")
        return by(left, right)

    return operation


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or (base == 0 and exponent < 0):
        raise Refused("an exponent must be a whole number, and not negative over zero")
    if _bits(base) * abs(exponent) > 2 * MAX_BITS:  # a cheap upper bound, before anything large is made
        raise Refused(f"a result may have {MAX_BITS} bits")
    return base ** int(exponent)


_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divided(operator.truediv),
    ast.FloorDiv: _divided(operator.floordiv),
    ast.Mod: _divided(operator.mod),
    ast.Pow: _power,
}


def _bits(value: Fraction) -> int:
    return max(abs(value.numerator).bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise Refused(f"a result may have {MAX_BITS} bits")
    return value


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    twos, rest = 0, value.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    fives = 0
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    if rest != 1 or (places := max(twos, fives)) > 3 * DIGITS:
        return _rounded(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _rounded(value: Fraction) -> str:
    """To DIGITS significant digits, half up; whole parts are never shortened."""
    size = abs(value)
    whole = len(str(size.numerator // size.denominator)) if size >= 1 else 0
    places = max(DIGITS - whole, 0)
    if whole == 0:
        places += len(str(size.denominator // size.numerator)) - 1
    scaled = int(size * 10**places + Fraction(1, 2))
    digits = str(scaled).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".") if places else digits
    return f"-{text}" if value < 0 and scaled else text
