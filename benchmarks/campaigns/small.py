"""Data, a suite and a finished comparison that take seconds, and what of a comparison must come out the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

from attent_kit.engine.run import checkpoint
from attent_kit.errors import AttentKitError
from campaigns.trying import Lost, accepted, command
from support.cases import write_case
from support.commands import prepare_words

SUITE = """
name = "small"
directions = ["mr2ct"]
settings = {{ precision = "32-true", save_seconds = 0.0, log_steps = 1, snapshots = 2 }}
[domains]
mr = "{data}/mr.h5"
ct = "{data}/ct.h5"
[options]
translate_steps = 3
segment_steps = {steps}
translate_batch_size = 1
segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [8, 8, 8] }}
translator = {{ width = 4, blocks = 1 }}
image_discriminator = {{ width = 4, layers = 1 }}
entropy_discriminator = {{ width = 4 }}
"""
ROWS = {"Pixel": "pixel", "AttENT": "attent"}
"""Label and alignment; they share a stage."""
RUN = ("scores.csv", "selection.csv", "monitor.json", "log.jsonl", "segmentor.safetensors", "domain.json", "config.toml",
       "predictions/*.nii.gz", "slices.npz")  # fmt: skip
OUT = ("scores.csv", "table.md", "table.csv", "comparisons.csv", "grid.json", "comparison.toml")


class Small:
    """What a campaign works on, made once below its folder."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.volumes, self.data, self.pristine = work / "volumes", work / "data", work / "pristine"
        self.suite = work / "small.toml"
        if not (self.data / "ct.h5").exists() or not (self.data / "mr.h5").exists():
            for n, modality in enumerate(("ct", "mr")):
                for case in (1, 2, 3):
                    write_case(self.volumes / modality, f"{modality}_{case}", modality, seed=10 * n + case)
                done = command(*self.prepare_words(modality, self.data / f"{modality}.h5")).wait()
                if done.code:
                    raise Lost(f"the data cannot be prepared: {done.err}")
        self.suite.write_text(self.suite_of(list(ROWS)), encoding="utf-8")

    def prepare_words(self, modality: str, out: Path) -> list[str]:
        """`prepare` of one domain."""
        return [*prepare_words(self.volumes / modality, out, modality), "--workers", "1"]

    def suite_of(self, rows: list[str], steps: int = 3) -> str:
        """The text of a suite with these rows."""
        listed = [f'[[rows]]\nlabel = "{row}"\nalignment = "{ROWS[row]}"\n' for row in rows]
        return SUITE.format(data=self.data, steps=steps) + "".join(listed)

    def words(self, out: Path, *more: object) -> list[str]:
        """`compare` of the suite."""
        return [str(word) for word in ("compare", self.suite, "-o", out, *more)]

    def finished(self) -> Path:
        """A finished comparison with its report; nobody writes into it."""
        if not self.pristine.exists():
            self.make("being-made").rename(self.pristine)
        return self.pristine

    def make(self, name: str, watch: Callable[[Path], None] = lambda out: None) -> Path:
        """The comparison, undisturbed, in a folder of that name; `watch` looks on in its process."""
        made = self.work / name
        shutil.rmtree(made, ignore_errors=True)
        done = accepted(
            command(*self.words(made, "-d", "cpu"), before=lambda: watch(made)).wait(), "compare", "undisturbed"
        )
        if done.code:
            raise Lost(f"the undisturbed comparison ended with {done.code}: {done.err}", "undisturbed")
        return made

    def fresh(self, name: str) -> Path:
        """A place of that name with nothing in it."""
        place = self.work / "tries" / name
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def copy(self, name: str) -> Path:
        """The finished comparison, to be spoilt."""
        return Path(shutil.copytree(self.finished(), self.fresh(name)))


def without_figures() -> None:
    """Let this process draw nothing: most of the time of so small a comparison."""
    from attent_kit.report import render

    render.segmentation_figure = render.ranks_figure = lambda *given: []


def results(out: Path) -> dict[str, object]:
    """Bytes of all files of a comparison that must not depend on what happened to it; of a checkpoint its digest."""
    found: dict[str, object] = {}
    for pattern in (*OUT, *(f"*/*/seed*/{name}" for name in RUN)):
        found |= {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob(pattern))}
    for pattern in ("shared/*.ckpt", "*/*/seed*/checkpoint.ckpt", "*/*/seed*/snapshots/*.ckpt"):
        for path in sorted(out.glob(pattern)):
            try:
                found[path.relative_to(out).as_posix()] = checkpoint.read(path)["digest"]
            except AttentKitError as error:
                found[path.relative_to(out).as_posix()] = f"damaged: {error}"
    pools: dict[str, set[bytes]] = {}
    # Either row may have trained the translators that both use, and has them in its log.
    for path in sorted(out.glob("*/*/seed*/log.jsonl")):
        lines = path.read_bytes().splitlines(keepends=True)
        shared = {line for line in lines if b'"stage": "translate"' in line}
        found[path.relative_to(out).as_posix()] = b"".join(line for line in lines if line not in shared)
        pools.setdefault(f"{path.parts[-4]}, shared stage in log.jsonl", set()).update(shared)
    return {**found, **pools}


def same(out: Path, other: Path, kind: str, leaving_out: tuple[str, ...] = ()) -> None:
    """Lost unless both comparisons hold the same results, and nothing of a process that works on them."""
    here, there = results(out), results(other)
    differing = [n for n in {**here, **there} if here.get(n) != there.get(n) and not n.endswith(leaving_out or ("\0",))]
    if differing:
        raise Lost(f"another result after all: {', '.join(differing[:5])}", kind)
    # Tables and figures have no lock: what a killed process was writing of them is for `doctor --clean`. A run that has its
    # scores is not opened again to say that nobody works on it.
    unfinished = [path for name in (".*.part", "failed.json") for path in out.glob(f"*/*/seed*/**/{name}")]
    unfinished += [p for p in out.rglob("progress.json") if not p.with_name("scores.csv").exists()]
    if unfinished:
        raise Lost(f"left behind: {unfinished[0]}", kind)
