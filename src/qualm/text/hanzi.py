"""Chinese characters by how common they are, told from the order of national character sets."""

from functools import cache


@cache
def is_common(char: str) -> bool:
    """On the first level of GB 2312 or of Big5: the characters that schools teach."""
    for encoding, last in (("gb2312", 0xD7FF), ("big5", 0xC67E)):
        try:
            if int.from_bytes(char.encode(encoding), "big") <= last:
                return True
        except UnicodeEncodeError:
            continue
    return False
