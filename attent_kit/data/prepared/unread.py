"""A source that a method never reads: its name, and nothing else. No file belongs to it, so none can be opened."""

from pathlib import Path

from attent_kit.data.prepared.file import Manifest, Prepared

_OF_CASES: Manifest = {
    "cases": [],
    "splits": {},
    "split": None,
    "shared_cases": [],
    "phantom": False,
    "decisions": [],
    "warnings": [],
}


def unread(name: str, target: Prepared) -> Prepared:
    """A domain of that name which has the organs and the slices of `target` and no case."""
    manifest: Manifest = {**target.manifest, **_OF_CASES, "domain": name, "modality": "unknown"}
    return Prepared(Path(f"{name} (not read)"), manifest)


def is_read(prepared: Prepared) -> bool:
    """Whether there is a file behind a domain."""
    return bool(prepared.cases)
