"""The folder of a comparison as runs leave it, without a training: what a report is made of."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.config import to_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.volumes import write_labels
from attent_kit.engine.compare.results_folder import COMPARISON
from attent_kit.engine.compare.suite import slug
from attent_kit.files import write_signed
from attent_kit.report.scores import Score, write_scores

ORGANS = ("liver", "right kidney", "left kidney", "spleen")
ROWS = {"W/o adaptation": "source_only", "AttENT": "attent", "Supervised": "supervised"}
CASES = ("ct_1", "ct_2", "ct_3")
"""Of them the prepared file tests ct_3, which is the worst."""
DICE = {"W/o adaptation": 0.4, "AttENT": 0.6, "Supervised": 0.9}


def scores_of(row, direction="mr2ct", seed=0, cases=CASES, base=None, organs=ORGANS, protocol="3d-mm"):
    """Dice falls by 0.05 a case and rises by 0.02 a seed; ASSD in mm is 10 (1 - Dice). All organs are equal."""
    base = DICE.get(row, 0.5) if base is None else base
    made = []
    for n, case in enumerate(cases):
        dice = base - 0.05 * n + 0.02 * seed
        for organ in organs:
            found = (("dice", dice, "fraction"), ("assd", 10 * (1 - dice), "mm" if protocol == "3d-mm" else "voxel"))
            made += [Score(row, direction, seed, case, organ, metric, v, unit, protocol) for metric, v, unit in found]
    return made


def write_run(out, prepared, row, alignment, direction="mr2ct", seed=0, scores=None, kept=True):
    """One finished run; its folder."""
    folder = Path(out) / direction / slug(row) / f"seed{seed}"
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    source, target = direction.split("2")
    files = {side: Prepared.open(prepared / f"{name}.h5") for side, name in (("source", source), ("target", target))}
    data = {side: str(file.path) for side, file in files.items()}
    data |= {f"{side}_hash": file.content_hash() for side, file in files.items()}
    config = {"seed": seed, "alignment": {"name": alignment, "segment_steps": 7}, "data": data}
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    env = {
        "attent_kit": "9.9",
        "python": "3",
        "command": ["/somewhere/attentkit", "compare", "a b"],
        "packages": {"torch": "2"},
    }
    (folder / "env.json").write_text(json.dumps(env), encoding="utf-8")
    domain = {"domain": target, "organs": ORGANS, "source": {"domain": source}}
    write_signed(folder / "domain.json", domain)
    lines = [{"step": s, "stage": "segment", "L_seg": 1 / (1 + s), "L_adv": 0.5} for s in (9, 19, 29)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for case in files["target"].cases_in("test"):
        labels, _ = files["target"].truth(case.id)
        affine = np.array(files["target"].grid(case.id).affine)
        write_labels(folder / "predictions" / f"{case.id}.nii.gz", labels, affine)
    if kept:
        image = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
        whats = ("entropy", "translation", "return") if alignment == "attent" else ("entropy",)
        arrays = {f"{target}_3-{z}-{what}": image for z in range(4) for what in whats}
        np.savez_compressed(folder / "slices.npz", **arrays)
    write_scores(folder / "scores.csv", scores_of(row, direction, seed) if scores is None else scores)
    return folder


def write_plan(out, rows=ROWS, title="A title", note="A note.", runs=None, **more):
    """comparison.toml, as `attentkit compare` leaves it; of all runs that are there, unless told which."""
    if runs is None:
        runs = sorted(folder.relative_to(out).as_posix() for folder in Path(out).glob("*/*/seed*"))
    plan = {"title": title, "note": note, "runs": list(runs), "rows": dict(rows), "directions": {"mr2ct": "MR to CT"}}
    (Path(out) / COMPARISON).write_text(to_toml({**plan, **more}), encoding="utf-8")


def write_comparison(out, prepared, rows=ROWS, seeds=(0, 1), **more):
    """Three rows, two seeds, MR to CT, all finished."""
    for row, alignment in rows.items():
        for seed in seeds:
            write_run(out, prepared, row, alignment, seed=seed, **more)
    write_plan(out, rows)
    return Path(out)


def draw_nothing(monkeypatch):
    """Figures are files without what is drawn in them."""

    def write(*given, **words):
        files = [given[-1].with_name(f"{given[-1].name}.{kind}") for kind in ("png", "svg")]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        return files

    for module in (
        "report.numbers.box_figure",
        "report.traces.curve_figure",
        "engine.publish.slices.segmentation_figure",
    ):
        monkeypatch.setattr(f"attent_kit.{module}", write)


def reported(attentkit, out):
    """The page that `attentkit report` makes of a folder."""
    outcome = attentkit("report", out)
    assert outcome.code == 0, outcome.err
    return parse(out)


class Parsed(NamedTuple):
    """A page, read."""

    tags: list
    """(name, attributes) of every element, in order."""
    text: str
    """All that a reader sees, without the style sheet."""
    tables: dict
    """Rows of cells by caption; the first row is the head."""


def parse(path) -> Parsed:
    """report.html of a folder."""
    reader = _Reader()
    reader.feed((Path(path) / "report.html").read_text(encoding="utf-8"))
    return Parsed(reader.tags, " ".join(" ".join(reader.words).split()), reader.tables)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.tables = [], [], {}
        self._style, self._cell, self._caption, self._rows = False, None, None, []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = self._style or tag == "style"
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag == "caption":
            self._caption = []

    def handle_endtag(self, tag):
        self._style = self._style and tag != "style"
        if tag in ("td", "th"):
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag == "caption":
            self._caption = "".join(self._caption).strip()
        elif tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if self._style:
            return
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)
        elif isinstance(self._caption, list):
            self._caption.append(data)
