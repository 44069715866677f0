"""Words of commands on small data, and what they answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.messages import quotes

TINY = [
    f"--set={option}"
    for option in (
        "segment_steps=3", "segment_batch_size=2", "segmentor.encoder=tu-test_resnet", "segmentor.encoder_depth=3",
        "segmentor.decoder_channels=[16,8,8]", "save_seconds=0", "log_steps=1", "precision=32-true",
    )
]  # fmt: skip
"""Options of a run that takes a second on a processor."""


class Outcome(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def without_bytecode() -> dict[str, str]:
    """The environment of a process whose files are cut off: bytecode that is cut off too would be there for all later ones."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def prepare_words(folder: Path, out: Path, modality: str = "ct", *more: object) -> list[str]:
    """`prepare` of a folder of `write_case`, at its own 32 pixels, one case a split."""
    words = ["prepare", folder / "images", "--labels", folder / "labels", "--out", out, "--modality", modality]
    split = [f"--{name}={modality}_{n}" for n, name in enumerate(("train", "val", "test"), start=1)]
    return [str(word) for word in [*words, "--size", 32, *split, *more]]


def train_words(prepared: Path, out: Path, *more: object, alignment: str = "source_only") -> list[str]:
    """`train` from MR to CT with TINY options."""
    words = ["train", alignment, "-s", prepared / "mr.h5", "-t", prepared / "ct.h5", "-d", "cpu", "-o", out]
    return [str(word) for word in [*words, *TINY, *more]]


NETWORKS = """segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
translator = {{ width = 4, blocks = 1 }}
image_discriminator = {{ width = 4, layers = 1 }}
entropy_discriminator = {{ width = 4 }}
"""
"""Options of a suite's rows that take a second on a processor, for `str.format`."""
SUITE = (
    """
name = "tiny"
title = "Tiny"
note = "Boxes and noise."
directions = ["mr2ct", "ct2mr"]
seeds = [0, 1]
settings = {{ precision = "32-true", save_seconds = 0.0 }}

[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"

[options]
segment_steps = 2
translate_steps = 2
"""
    + NETWORKS
    + """
[[rows]]
label = "W/o adaptation"
alignment = "source_only"

[[rows]]
label = "AttENT"
alignment = "attent"
"""
)
COMMAND = [sys.executable, "-c", "import sys; from attent_kit.cli import run; sys.exit(run(sys.argv[1:]))"]
"""`attentkit` in a process of its own, before its words."""


def says(outcome, code, *sentences):
    """The exit code, and one message on stderr that quotes every one of these."""
    assert outcome.code == code, outcome
    assert outcome.err.count("Error: ") + outcome.err.startswith("UnknownComponent: ") == 1
    assert "Traceback" not in outcome.err
    for sentence in sentences:
        assert quotes(outcome.err, sentence)
    return True


LIMITED = """
import resource, sys
from attent_kit.cli import run

limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(run(sys.argv[2:]))
"""


def on_a_full_disk(limit, *words):
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, (limit, *words))],
        capture_output=True, text=True, timeout=300, env=without_bytecode(),
    )  # fmt: skip
    assert "Traceback" not in child.stderr
    return child.returncode, child.stderr
