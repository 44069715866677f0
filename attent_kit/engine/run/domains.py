"""The two domains of a run as it sees them: its prepared files, or one fold of them."""

from collections.abc import Callable
from pathlib import Path

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import in_fold, without_patients, without_tests
from attent_kit.data.prepared.unread import is_read, unread
from attent_kit.engine.run.settings import DataSettings
from attent_kit.files import while_unchanged

ELSEWHERE = "elsewhere"
"""What a source is called that is not read and has no name."""
Reader = Callable[[Path], Prepared]

facts_in: Reader = while_unchanged(Prepared.open)
"""A prepared file for its manifest alone; what has been read once is shared as long as the file is the same."""


def target_seen(data: DataSettings, read: Reader = Prepared.open) -> Prepared:
    """The target, or a fold of it. DataError if it is missing, or cannot be dealt into folds.

    `read` opens a prepared file.
    """
    target = _tested(data, read)
    return without_tests(target) if data.untested else target


def domains_seen(data: DataSettings, read: Reader = Prepared.open) -> tuple[Prepared, Prepared]:
    """Source and target; of a fold, the source is without the patients that are tested. DataError as for the target, and if
    nothing is left to train on. A source that has no file in the settings is a name without cases."""
    there = None if data.source is None else read(data.source).with_channels(data.channels)
    target = _tested(data, read)
    source = unread(data.unread or ELSEWHERE, target) if there is None else there
    if data.fold is not None and is_read(source):
        source = without_patients(source, target, data.fold.shared_patients)
    return source, without_tests(target) if data.untested else target


def _tested(data: DataSettings, read: Reader) -> Prepared:
    target = read(data.target).with_channels(data.channels)
    return target if data.fold is None else in_fold(target, data.part, data.fold.seed)
