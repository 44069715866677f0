"""A layout: one way of keeping volumes on disk, and the values that reading it gives. No torch here.

class Mine(Layout):
    '''Volumes as our hospital exports them.'''

    @classmethod
    def recognises(cls, path): return (path / "export.xml").exists()
    def entries(self): return [Entry(id, images=(...,), labels=(...,)) for ...]
    def read(self, entry): return Scan(read_volume(entry.images[0]), read_labels(entry.labels[0], like=...))

A plugin offers it with the hook `attentkit_layouts`: name to class or "module:Class".
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

from attent_kit.data.scans.volumes import Volume
from attent_kit.data.sets.labelmap import LabelMap, OrganNames
from attent_kit.errors import DataError


class Entry(NamedTuple):
    """One case as it lies on disk: which files belong to it. Nothing of them is read yet."""

    id: str
    """Names the case; a number in it is what named splits go by."""
    images: tuple[Path, ...]
    """The file of the image, or every file of its DICOM series."""
    labels: tuple[Path, ...] = ()
    """The file or files of its labels; none if it has no labels."""
    modality: str | None = None
    """ct or mr where the layout knows it."""
    split: str | None = None
    """train, val or test where the layout says so."""
    organs: LabelMap | OrganNames | frozenset[str] | None = None
    """What the label files of this case annotate, where that is not what `Layout.organs` says; a set names those of its organs
    that are annotated here, whichever of them are wanted."""
    patient: str = ""
    """Whose scan it is, where several cases may be of one patient; the case itself if it is empty."""


class Scan(NamedTuple):
    """One case, read."""

    image: Volume
    labels: Volume | None = None
    """On the grid and in the axis order of the image, values as `Layout.organs` names them."""
    decisions: tuple[str, ...] = ()
    """What the reader had to decide and how, a sentence each: kept in the manifest."""
    doubts: tuple[str, ...] = ()
    """What may be wrong, a sentence each: kept in the manifest, and told to the user as a warning."""


class Layout(ABC):
    """One data set in a folder. Instances are pickled to worker processes: keep paths and plain values only."""

    kind: ClassVar[str] = "layouts"
    organs: LabelMap | None = None
    """Label values by organ name, where the layout knows them; the user may name others."""
    allow_unlabelled: bool = True
    """Whether the user wants a data set in which no labels were found at all; `prepare` refuses it otherwise."""
    refused: list[DataError] | None = None
    """What `refuse` was given, where somebody sets a list to see the other cases too, as `attentkit check` does."""
    plane: str | None = None
    """The plane of its slices, where it keeps slices whose distance nobody knows, so that they cannot be cut otherwise."""
    origin: str = ""
    """Name, distribution and version that it is offered under, for the manifest; `open_layout` fills it in."""

    def __init__(self, path: Path, part: str | None = None) -> None:
        """`part` chooses one of `parts()`; where it is None and there are several, `open_layout` asks for one, unless a
        subclass has set `self.part` to its default."""
        self.path = Path(path)
        self.part = part

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the place looks like this layout, told quickly and from names alone."""

    @classmethod
    def parts(cls, path: Path) -> tuple[str, ...]:
        """Names of the data sets that lie in the place, such as sequences; empty where there is only one."""
        return ()

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Every case, sorted by id. DataError for a file without its counterpart or two files of one case."""

    def refuse(self, error: DataError) -> None:
        """For `entries`, of one case that it then leaves out or gives without labels. Raises `error` unless it is collected."""
        if self.refused is None:
            raise error
        self.refused.append(error)

    @abstractmethod
    def read(self, entry: Entry) -> Scan:
        """Image and labels of a case. DataError, which names the file, for anything that cannot be read for certain."""
