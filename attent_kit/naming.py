"""What names that strangers choose may be, before they become part of a path or a line that somebody reads."""

import re

LONGEST_NAME = 200
"""Bytes that a name may have in UTF-8: with an ending it is a file name, which may have 255."""
LONGEST_LINE = 300
LONGEST_TEXT = 5000
"""Letters."""
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])[ .]*(\..*)?", re.IGNORECASE)
"""Names that Windows takes for a device, whatever their ending."""
_REFUSED = {*'<>:"/\\|?*'}
"""Letters that a file name of Windows cannot have; two of them part folders."""


def names_a_file(name: object) -> bool:
    """Whether it can name a file or a folder on every system, and nothing outside of the folder that it is put into."""
    # A name that is not UTF-8 is not printable; so it can be encoded.
    if not isinstance(name, str) or not name.strip(" .") or not name.isprintable() or _REFUSED & {*name}:
        return False
    # Windows drops a blank or a dot at the end: two names would be one file.
    return name[-1] not in " ." and not _DEVICE.fullmatch(name) and len(name.encode()) <= LONGEST_NAME


def is_a_line(text: object) -> bool:
    """Whether it is one line of words that can be shown anywhere."""
    return isinstance(text, str) and bool(text.strip()) and text.isprintable() and len(text) <= LONGEST_LINE


def is_a_text(text: object) -> bool:
    """The same of some lines, or none."""
    return isinstance(text, str) and len(text) <= LONGEST_TEXT and all(c.isprintable() or c in "\n\t" for c in text)
