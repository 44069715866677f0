"""What `attentkit prepare` relies on in a layout."""

import pickle
import tempfile
from pathlib import Path

import numpy as np

from attent_kit.data.prepare.cases import read_scan
from attent_kit.data.prepare.plan import entry_files
from attent_kit.data.sets.layout import Layout
from attent_kit.testing.subject import Skipped, Subject


def recognises_nothing_in_nothing(subject: Subject) -> None:
    """Every layout is asked about every folder. `recognises` must return True or False without an error, and False for an empty
    folder."""
    with tempfile.TemporaryDirectory() as folder:
        answer = subject.component.recognises(Path(folder))
    assert answer is False, f"{subject.called}.recognises answers {answer!r} for an empty folder."


def reads_a_data_set(subject: Subject) -> None:
    """`prepare` lists the cases of a data set and reads them in several processes. Give each entry an id of its
    own, in sorted order, name files that exist, keep no open file in the layout, and name organs by values that occur."""
    if subject.data is None:
        raise Skipped("name a data set of that layout with --data FOLDER")
    check_layout(subject.component, subject.data)


def check_layout(layout: type[Layout], path: Path, part: str | None = None, elsewhere: Path | None = None) -> None:
    """The data set at `path` is recognised, listed and read as `prepare` relies on; `elsewhere` is not recognised."""
    name = layout.__name__
    assert issubclass(layout, Layout), f"{name} is not a Layout: subclass attent_kit.layouts.Layout."
    assert (layout.__doc__ or "").strip(), f"{name} has no docstring: its first line is its summary."
    assert layout.recognises(path) is True, f"{name} does not recognise {path}: answer True or False."
    if elsewhere is not None:
        assert layout.recognises(elsewhere) is False, (
            f"{name} recognises {elsewhere}, which is not one of its data sets."
        )
    assert part is None or part in layout.parts(path), f"{name} has no part '{part}', only {layout.parts(path)}."
    found = layout(path, part)
    entries = found.entries()
    assert entries == layout(path, part).entries(), f"{name}.entries returns something else the second time."
    ids = [entry.id for entry in entries]
    assert entries and ids == sorted(set(ids)), f"{name}.entries: give each case an id of its own, sorted by id."
    for entry in entries:
        missing = [str(file) for file in entry_files(entry) if not file.exists()]
        assert entry.images and not missing, (
            f"{name}: case '{entry.id}' needs an image, and every file must exist {missing}."
        )
    # Several processes read, each with a copy of the layout.
    first, second = (read_scan(each, entries[0]) for each in (found, pickle.loads(pickle.dumps(found))))
    assert np.array_equal(first.image.array, second.image.array), (
        f"{name}.read returns something else in another process."
    )
    assert found.organs is None or first.labels is None or found.organs.apply(first.labels.array, ids[0]).any(), (
        f"{name}: case '{ids[0]}' has none of the organs that the layout names: check their values."
    )
