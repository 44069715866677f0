"""A new plugin as a project of its own, from the texts in templates/."""

import keyword
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from attent_kit import INTERFACE_VERSION, __version__
from attent_kit.errors import ConfigError, did_you_mean

PREFIX = "attentkit-"


@dataclass(frozen=True)
class Kind:
    """A kind of component that a new plugin can start with."""

    kinds: str
    """As the registry calls it."""
    tests: tuple[str, ...]
    """Templates of its tests."""
    summary: str
    """First line of its docstring, about the template's code."""
    try_it: str
    """A command that uses it."""


KINDS = {
    "alignment": Kind(
        "alignments",
        ("test_contract", "test_alignment"),
        "Gives the features of both domains the same means.",
        "attentkit compare --alignments source_only,$name --set segment_steps=100 --out runs/$name",
    ),
    "segmentor": Kind(
        "segmentors",
        ("test_contract",),
        "A plain convolutional network at a quarter of the resolution.",
        "attentkit compare --alignments source_only --set segmentor=$name --set segment_steps=100 --out runs/$name",
    ),
    "translator": Kind(
        "translators",
        ("test_contract",),
        "A few convolutions at full resolution.",
        "attentkit compare --alignments cyclegan --set translator=$name --set translate_steps=100 --out runs/$name",
    ),
    "discriminator": Kind(
        "discriminators",
        ("test_contract",),
        "A discriminator of three convolutions.",
        "attentkit compare --alignments ada_output --set output_discriminator=$name --set segment_steps=100 --out runs/$name",
    ),
    "layout": Kind(
        "layouts",
        ("test_layout",),
        "A folder for each patient, with scan.nii.gz and organs.nii.gz.",
        "attentkit prepare FOLDER --layout $name --out ct.h5",
    ),
    "selector": Kind(
        "selectors",
        ("test_selector",),
        "Mean probability of the likeliest class.",
        "attentkit train source_only --select $name -s mr.h5 -t ct.h5",
    ),
}
"""By the word of `--kind`."""


def new_plugin(name: str, kind: str, folder: Path, taken: Iterable[str] = ()) -> list[str]:
    """Write a plugin's project to a new folder; returns the next three commands to type.

    `taken`: names that components of this kind already have.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind}: no such kind.{did_you_mean(kind, KINDS)} {_all()}")
    _refuse_name(name, kind, taken)
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} already exists. Choose another folder with --out, or another name for the plugin.")
    about = KINDS[kind]
    words = {
        "name": name,
        "package": f"attentkit_{name}",
        "Class": "".join(word.capitalize() for word in name.split("_")),
        "kind": kind,
        "a": _article(kind),
        "kinds": about.kinds,
        "summary": about.summary,
        "version": __version__,
        "interface": INTERFACE_VERSION,
    }
    words["try_it"] = Template(about.try_it).substitute(words)
    texts = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "readme.md.txt",
        ".gitignore": "gitignore.txt",
        f"{words['package']}/__init__.py": "init.py.txt",
        f"{words['package']}/{kind}.py": f"{kind}.py.txt",
        **{f"tests/{test}.py": f"{test}.py.txt" for test in about.tests},
    }
    half = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for path, template in texts.items():
            text = files("attent_kit").joinpath("templates", template).read_text(encoding="utf-8")
            (half / path).parent.mkdir(parents=True, exist_ok=True)
            (half / path).write_text(Template(text).substitute(words), encoding="utf-8")
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return [
        f"cd {shlex.quote(str(folder))} && pip install -e '.[test]'",
        f"attentkit plugins check {name}",
        words["try_it"],
    ]


def _refuse_name(name: str, kind: str, taken: Iterable[str]) -> None:
    bare = name.lower().removeprefix(PREFIX).removeprefix("attentkit_")
    proposal = re.sub(r"[^a-z0-9_]+", "_", bare).strip("_").lstrip("0123456789_") or "mine"
    if name != bare or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > 40 or keyword.iskeyword(name):
        raise ConfigError(
            f"'{name}' cannot name a plugin: use lower-case letters, digits and underscores, at most 40, starting with a "
            f"letter, and not a Python keyword. For example: attentkit plugins new {_possible(proposal[:40])} --kind {kind}."
        )
    if name in taken:
        raise ConfigError(
            f"{_article(kind)} {kind} called '{name}' already exists (`attentkit list {KINDS[kind].kinds}`). Choose another "
            f"name, for example: attentkit plugins new my_{name} --kind {kind}."
        )


def _possible(name: str) -> str:
    return f"my_{name}" if keyword.iskeyword(name) else name


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _all() -> str:
    return f"The kinds: {', '.join(KINDS)}."
