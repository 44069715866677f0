"""Fifteen organs, from label files to the report: colours that differ, tables that fit, every organ scored."""

import csv
import io
import re
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import attent_kit as ak
from attent_kit.data.prepared.file import Prepared
from attent_kit.report.colours import FIRST, MOST, cielab, organ_colour, red_green_blue
from attent_kit.report.figures import overlay
from attent_kit.report.latex import latex
from attent_kit.report.preview import CaseRow, View, montage
from attent_kit.report.shown import MOST_COLUMNS, Shown, columns_in_parts
from support.cases import AFFINE
from support.commands import SUITE, says

ORGANS = (
    "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta", "inferior vena cava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate or uterus",
)  # fmt: skip
"""Of AMOS, in the order of its values."""
WORDS = ",".join(f"{organ}={value}" for value, organ in enumerate(ORGANS, start=1))


def write_case(folder, case, seed):
    """32 x 32 x 4 voxels with a box of 5 x 5 x 2 for each of fifteen organs."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((32, 32, 4), np.uint8)
    for n in range(15):
        x, y = 28 - 7 * (n % 4), 3 + 7 * (n // 4)
        labels[x - 5 : x, y : y + 5, 1:3] = n + 1
    image = (40 + 12 * labels + rng.normal(0, 4, labels.shape)).astype(np.float32)
    image[:2] = image[-2:] = -1000
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{case}.nii.gz")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison on fifteen organs, from `prepare` to the report: its folder and what it printed."""
    from contextlib import redirect_stderr, redirect_stdout

    from attent_kit.cli import run

    home = tmp_path_factory.mktemp("fifteen")
    for modality in ("mr", "ct"):
        for n in (1, 2, 3, 4):
            write_case(home / modality, f"{modality}_{n}", n)
        words = ["prepare", home / modality / "images", "--labels", home / modality / "labels", "--modality", modality]
        words += ["--organs", WORDS, "--size", 32, "--window", -100, 300, "--out", home / f"{modality}.h5"]
        words += [f"--train={modality}_1", f"--val={modality}_2", f"--test={modality}_3,{modality}_4"]
        assert run([str(word) for word in [*words, "--preview", home / f"{modality}.png"]]) == 0
    (home / "suite.toml").write_text(SUITE.format(prepared=home).replace("seeds = [0, 1]", "seeds = [0]"))
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        words = ["compare", home / "suite.toml", "--directions", "mr2ct", "--out", home / "runs", "--devices", "cpu"]
        assert run([str(word) for word in words]) == 0
    return home, out.getvalue()


def test_every_organ_is_kept_and_scored(compared):
    home, _ = compared
    domain = Prepared.open(home / "ct.h5")
    assert domain.organs == ORGANS and np.unique(domain.label_slices("ct_3")).tolist() == [*range(16)]
    rows = list(csv.DictReader((home / "runs" / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["organ"] for row in rows if row["metric"] == "dice"} == set(ORGANS)
    prediction = np.asarray(nib.load(next((home / "runs").rglob("ct_3.nii.gz"))).dataobj)
    assert prediction.dtype == np.uint8 and prediction.max() <= 15


def test_printed_tables_come_in_parts_of_few_columns(compared):
    _, printed = compared
    assert "(1 of 2)" in printed and "(2 of 2)" in printed
    for organ in ORGANS:
        assert organ in printed
    lines = printed.splitlines()
    assert max(len(line) for line in lines if line.startswith(("│", "┃"))) < 200
    # The whole names: none is broken over lines.
    assert any("prostate or uterus" in line and "selection" in line for line in lines)


def test_markdown_and_latex_have_each_organ_once_in_tables_of_few_columns(compared):
    home, _ = compared
    text = (home / "runs" / "table.md").read_text(encoding="utf-8")
    heads = [
        line for line in text.splitlines() if line.startswith("| method |") and ("spleen" in line or "bladder" in line)
    ]
    assert max(line.count("|") - 1 for line in heads) <= MOST_COLUMNS
    columns = [cell.strip() for line in heads[:2] for cell in line.strip("|").split("|")]
    assert columns[0] == columns[len(heads[0].strip("|").split("|"))] == "method" and columns[-1] == "selection"
    assert [column for column in columns if column != "method"][:16] == [*ORGANS, "average"]
    tex = (home / "runs" / "table.tex").read_text(encoding="utf-8")
    tabulars = re.findall(r"\\begin\{tabular\}\{(l+r+)\}(.*?)\\end\{tabular\}", tex, re.DOTALL)
    assert tabulars and all(len(columns) <= MOST_COLUMNS for columns, _ in tabulars)
    for columns, body in tabulars:
        assert {line.count("&") + 1 for line in body.splitlines() if line.endswith(r"\\")} == {len(columns)}
    assert tex.count("prostate or uterus &") == tex.count(r"\begin{table}") == len(tabulars) / 2


def test_the_report_and_its_figures_show_every_organ_in_a_colour_of_its_own(compared):
    home, _ = compared
    page = (home / "runs" / "report.html").read_text(encoding="utf-8")
    legend = re.findall(r'fill="(#[0-9A-F]{6})"[^<]*<?/?[^<]*</svg>\s*([^<]+)', page)
    colours = {name.strip(): colour for colour, name in legend}
    assert [colours[organ] for organ in ORGANS] == [organ_colour(n) for n in range(15)]
    figure = next((home / "runs").rglob("figure-mr2ct.svg")).read_text(encoding="utf-8")
    assert all(organ in figure and organ_colour(n).lower() in figure for n, organ in enumerate(ORGANS))
    boxes = next((home / "runs").rglob("boxes-mr2ct-dice.svg")).read_text(encoding="utf-8")
    assert all(organ in boxes and organ_colour(n).lower() in boxes for n, organ in enumerate(ORGANS))


# Colours


@pytest.mark.parametrize(("organs", "apart"), [(4, 50), (15, 25), (30, 25), (117, 15), (MOST, 10)])
def test_colours_are_apart_as_the_eye_sees_them(organs, apart):
    lab = cielab(np.array([red_green_blue(organ_colour(n)) for n in range(organs)]))
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(organs, dtype=bool)]
    assert distances.min() >= apart
    # Not grey, as the image below them is, and neither white nor black.
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 30 and lab[:, 0].min() > 30 and lab[:, 0].max() < 95


def test_the_first_colours_are_those_of_okabe_and_ito():
    assert tuple(organ_colour(n) for n in range(7)) == FIRST
    # White, mid-grey and red as in the tables of the CIE.
    known = {(255, 255, 255): (100, 0, 0), (119, 119, 119): (50.03, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20)}
    assert np.allclose(cielab(np.array([*known])), [*known.values()], atol=0.05)


def test_an_overlay_of_fifteen_organs_has_fifteen_colours_and_ignores_what_is_unknown():
    labels = np.arange(17, dtype=np.uint8)[None].repeat(3, axis=0)
    labels[:, 16] = 255
    drawn = overlay(labels)
    assert len({tuple(colour) for colour in drawn[1, 1:16, :3].tolist()}) == 15
    assert not drawn[:, 0].any() and not drawn[:, 16].any()


def test_a_legend_of_long_names_stays_inside_its_figure(tmp_path):
    view = View("slice 1", np.zeros((4, 4)), None, 4.0, 4.0)
    for organs in (ORGANS[:4], ORGANS, [f"{organ} with a very long name of its own" for organ in ORGANS]):
        montage([CaseRow("case", (), (), (view,))], organs, "title", (), tmp_path / "x.png")
        picture = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
        assert (picture[:, -3:] == 255).all() and (picture[:, :3] == 255).all()
        for n in range(len(organs)):
            near = np.abs(picture - red_green_blue(organ_colour(n))).max(axis=2) <= 2
            assert near.sum() > 20, organs[n]


# Tables


@pytest.mark.parametrize("count", [1, 2, 6, 10, 11, 17, 19, 20, 120])
def test_columns_are_dealt_evenly_and_each_part_begins_with_the_first(count):
    parts = columns_in_parts(range(count))
    assert all(part[0] == 0 for part in parts) and [n for part in parts for n in part[1:]] == [*range(1, count)]
    assert max(map(len, parts)) <= MOST_COLUMNS and len(parts) == max(1, -(-(count - 1) // (MOST_COLUMNS - 1)))
    assert all(abs(len(one) - len(other)) <= 1 for one, other in pairwise(parts))


def test_a_table_of_few_columns_is_one_as_always():
    shown = Shown("Title", ["method", *ORGANS[:5]], [["a", *"12345"]], footnotes=("a note",))
    console = Console(file=io.StringIO(), width=200)
    console.print(shown.rich())
    text = console.file.getvalue()
    assert text.count("Title") == text.count("a note") == 1 and "of 1" not in text
    assert (
        latex([], [])
        == "% Tables of attentkit, for \\usepackage{booktabs}. Best of each column in bold, bounds aside.\n"
    )


def test_more_organs_than_a_byte_holds_are_refused(attentkit, tmp_path):
    write_case(tmp_path, "a", 1)
    words = ["prepare", tmp_path, "--modality", "ct", "-o", tmp_path / "x.h5", "--organs"]
    assert says(attentkit(*words, ",".join(f"o{n}={n}" for n in range(1, 256))), 2, "1 to 254 organs, not 255")


def test_values_above_a_byte_in_the_files_become_classes(tmp_path):
    write_case(tmp_path, "a", 1)
    path = tmp_path / "labels" / "a.nii.gz"
    drawn = np.asarray(nib.load(path).dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image(1000 * drawn, AFFINE), path)
    organs = {organ: 1000 * value for value, organ in enumerate(ORGANS, start=1)}
    words = {"modality": "ct", "size": 32, "organs": organs, "train": ["a"], "val": [], "test": []}
    domain = ak.prepare(tmp_path, tmp_path / "x.h5", **words)
    assert np.unique(domain.label_slices("a")).tolist() == [*range(16)]
    assert np.array_equal(domain.grid("a").to_native(domain.label_slices("a")), drawn)
