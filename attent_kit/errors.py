"""Every error a user can cause: one sentence that says what to type next, and the exit code it ends in."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class AttentKitError(Exception):
    """Base of all errors that are the answer to a user's input; the command line prints the sentence and exits."""

    exit_code = 1


class RunError(AttentKitError):
    """A run could not go on."""

    exit_code = 1


class ProcessLost(RunError):
    """Another process of a run on several devices has died; what is saved is whole, and the run may go on from there."""


class ConfigError(AttentKitError):
    """The words on the command line or in a TOML file do not describe something that can be run."""

    exit_code = 2


class UnknownComponent(ConfigError):
    """No plugin offers a component of that name."""


class PluginConflict(ConfigError):
    """Two plugins offer the same name."""


class DataError(AttentKitError):
    """An image, a label map or a prepared file is not what it should be."""

    exit_code = 3


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the nearest of `names`, or an empty string."""
    nearest = get_close_matches(str(given), list(names), n=1, cutoff=0.6)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of many names: "a, b, c and 4 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def printable(text: str) -> str:
    """Text for a terminal: every control character but the line break, and what is not UTF-8, is shown as an escape of Python.

    Names of files and of cases are anybody's; written as they are, they could move the cursor or change what was said.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, PyTorch or a library below it says so; not each of them has an exception of its own."""
    names = [cls.__name__ for cls in type(error).__mro__]
    said = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
    return "MemoryError" in names or "OutOfMemoryError" in names or any(words in str(error) for words in said)
