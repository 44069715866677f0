"""A trained run as one zip file for others: what `predict` needs and nothing else.

    pack.json            format, licence, and the SHA-256 and size of every other file
    config.toml          the method with its options, without the places of this machine
    domain.json          organs, slices and intensities, and what the training images looked like
    env.json             what the run was computed with, and the plugins that it needs
    card.json            which run it is and what it is not good for
    weights.safetensors  the networks that `predict` calls

A pack is read in memory and nothing of it is ever written to disk, so that its names lead nowhere.
"""

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attent_kit.errors import RunError
from attent_kit.files import write_whole
from attent_kit.reading import json_in, of_git

FORMAT, VERSION = "attent-kit pack", 1
MANIFEST = "pack.json"
CONFIG, DOMAIN, ENVIRONMENT, CARD, WEIGHTS = (
    "config.toml", "domain.json", "env.json", "card.json", "weights.safetensors",
)  # fmt: skip
LARGEST = {MANIFEST: 2**20, CONFIG: 2**20, DOMAIN: 2**24, ENVIRONMENT: 2**22, CARD: 2**22, WEIGHTS: 2**33}
"""Bytes that a file of a pack may have: 8 GiB of weights, some MiB of everything else."""
_DATE = (1980, 1, 1, 0, 0, 0)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)


@dataclass(frozen=True)
class Pack:
    """The verified contents of a pack."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def licence(self) -> str | None:
        """What its maker allows others to do with it; None if nothing was said."""
        return self.manifest["licence"]

    def text(self, name: str) -> str:
        """A file of words. RunError if it is not one."""
        try:
            return self.files[name].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken(self.path, f"{name} is not text") from error

    def sha256(self, name: str) -> str:
        """Of a file, as the manifest has it and as it was found to be."""
        return str(self.manifest["files"][name]["sha256"])


def write_pack(path: Path, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """A zip of these files and of the manifest that signs them; the same files make the same bytes. RunError if it cannot be
    written."""
    listed = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in files.items()}
    manifest = {"format": FORMAT, "version": VERSION, **facts, "files": listed}
    content = {MANIFEST: (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode(), **files}

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as file:
            for name, data in content.items():
                entry = zipfile.ZipInfo(name, _DATE)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                # Weights do not shrink, and what is stored cannot be a bomb.
                kind = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
                file.writestr(entry, data, compress_type=kind)

    write_whole(path, write)


def read_pack(path: Path) -> Pack:
    """The contents of a pack, each compared with its checksum. RunError for anything that `write_pack` does not write."""
    if pointer := of_git(path):
        raise RunError(pointer)
    if not zipfile.is_zipfile(path):
        raise _not_a_pack(path, "it is not a whole zip file")
    try:
        with zipfile.ZipFile(path) as file:
            _refuse_strange(path, file.infolist(), path.stat().st_size)
            files = {entry.filename: _content(path, file, entry) for entry in file.infolist()}
    except _UNREADABLE as error:
        raise _broken(path, "a part of it cannot be read") from error
    manifest = _manifest(path, files.pop(MANIFEST))
    signed = manifest["files"]
    if signed.keys() != files.keys():
        raise _broken(path, f"its files are not those that its {MANIFEST} lists")
    for name, content in files.items():
        if signed[name].get("sha256") != hashlib.sha256(content).hexdigest():
            raise _broken(path, f"the checksum of {name} is wrong")
    return Pack(path, manifest, files)


def _refuse_strange(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    """RunError for names, kinds and sizes that no pack has, before anything is unpacked."""
    names = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        shown = ascii(name[:80])
        if name.startswith(("/", "\\")) or name[1:2] == ":":
            raise _not_a_pack(path, f"its entry {shown} is an absolute path")
        if ".." in name.replace("\\", "/").split("/"):
            raise _not_a_pack(path, f"its entry {shown} leads out of the folder")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _not_a_pack(path, f"its entry {shown} is a link or a folder, not a plain file")
        if name not in LARGEST:
            raise _not_a_pack(path, f"it also holds {shown}")
        if names.count(name) > 1:
            raise _not_a_pack(path, f"it holds {shown} twice")
        if entry.flag_bits & 1:
            raise _not_a_pack(path, f"its entry {shown} is encrypted")
        if entry.file_size > LARGEST[name]:
            raise _not_a_pack(
                path, f"its entry {shown} would unpack to {entry.file_size} bytes, and {LARGEST[name]} are allowed"
            )
        if name == WEIGHTS and (entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size):
            raise _not_a_pack(path, f"its entry {shown} is compressed, and weights are not")
    if lacking := LARGEST.keys() - set(names):
        raise _not_a_pack(path, f"it lacks {', '.join(sorted(lacking))}")


def _content(path: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file of a pack; no more of it is unpacked than was declared."""
    with file.open(entry) as part:
        content = part.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise _broken(path, f"{entry.filename} has another size than the zip declares")
    return content


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json_in(content)
        files, licence = manifest["files"], manifest.get("licence")
        well_formed = all(isinstance(said, dict) for said in files.values()) and isinstance(licence, (str, type(None)))
        if manifest["format"] != FORMAT or not well_formed:
            raise ValueError("not a manifest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_a_pack(path, f"its {MANIFEST} does not describe a pack") from error
    if manifest.get("version") != VERSION:
        raise RunError(
            f"{path} is a pack of version {manifest.get('version')!r}, and this attent-kit reads version {VERSION}: type pip "
            "install --upgrade attent-kit."
        )
    return manifest | {"licence": licence}


def _not_a_pack(path: Path, why: str) -> RunError:
    return RunError(
        f"{path} is not a pack of attent-kit: {why}. Name the folder of a run, or a zip made with `attentkit pack RUN run.zip`."
    )


def _broken(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged: {why}. Copy or download it again.")
