"""The documentation says what is true: every command and every code block on its pages runs, shortened, and the site builds."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attent_kit.cli import COMMANDS, run
from support import public_sets
from support.cases import write_case
from support.commands import TINY
from support.layout_folders import write_phantoms

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LANGUAGES = {"sh", "python", "toml", "text", "{toctree}", "{glossary}", "{eval-rst}", "{include}", "{note}"}
"""Of blocks: `sh` and `python` are run, `toml` and `python` that begin with `# name.ext` are files, `text` is not ours to run."""
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
RUN = [
    page
    for page in PAGES
    if page.parent.name in ("tutorials", "howto") and page.stem not in ("write_a_method", "plugins", "cluster")
] + [DOCS / "reference" / "python.md", DOCS / "reference" / "suite.md"]
"""`test_plugin_guide.py` has the two on plugins, `test_slurm.py` and `test_ranks.py` that on clusters."""
SHORT = [
    *(word.removeprefix("--set=") for word in TINY if "segmentor.encoder=" not in word),
    "segmentor.encoder=tu-test_resnet", "translate_steps=2", "translate_batch_size=1", "translator.width=4",
    "translator.blocks=1", "image_discriminator.width=4", "image_discriminator.layers=1", "entropy_discriminator.width=4",
    "snapshots=1",
]  # fmt: skip
SMALL_SEGMENTOR = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
DISTRIBUTION = "attent-kit"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block of a page."""
    return re.findall(r"^```(\S*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def shortened(words: list[str]) -> list[str]:
    """The words of a command, so that what takes minutes takes a second."""
    command = next((word for word in words if word in COMMANDS), None)
    if command == "prepare":
        return [*words, "--size", "32", "--workers", "1"]
    if command not in ("train", "compare"):
        return words
    words = ["2" if before == "--more-steps" else word for before, word in zip(["", *words], words, strict=False)]
    of_all = [option for option in SHORT if not option.startswith(("translat", "image_", "entropy_"))]
    options = of_all if command == "train" and "source_only" in words else SHORT
    added = [f"--set={option}" for option in options] + ["--device", "cpu"] * ("--devices" not in words)
    if command == "compare":
        # Two rows, one seed and one direction show that it runs; what a longer grid would be is still expanded.
        added += ["--seeds", "0", "--directions", "mr2ct"]
        added += [] if {"--alignments", "--ablate", "--vary"} & {*words} else ["--alignments", "source_only,attent"]
        added += ["--dry-run"] if {"--vary", "--ablate", "--plan", "--devices"} & {*words} else []
        words = [word for word in words if word != "--plan"]
    return [*words, *added]


def run_command(line: str) -> None:
    """One line of a `sh` block: ours in this process, `pip` and `make` looked up, `ls` as it is."""
    words = shlex.split(line, comments=True)
    if words[0] == "attentkit":
        assert run(shortened(words[1:])) == 0, line
    elif words[0] == "pip":
        assert words[1] == "install"
        extra = re.fullmatch(rf"{DISTRIBUTION}(?:\[(\w+)\])?", words[-1])
        assert extra, line
        assert extra[1] is None or f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), line
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), line
    elif words[0] == "ls":
        assert Path(words[-1]).is_dir(), line
    elif words[0] == "cd":
        pass  # into the clone that `git clone` makes
    else:
        assert words[:2] == ["git", "clone"], f"{line}: nobody runs this"


def run_python(text: str, names: dict[str, object]) -> None:
    """A `python` block, shortened, with what the blocks of the page before it have defined."""
    text = re.sub(r'("(?:translate|segment)_steps": )\d+', r"\g<1>2", text)
    text = text.replace('"segmentor.encoder": "resnet18"', f'"segmentor": {SMALL_SEGMENTOR}, "snapshots": 1')
    exec(compile(text, "block", "exec"), names)


def lie_ready(page: str, trained: Path, suite: Path, prepared: Path) -> None:
    """What a reader of the page has in the folder before its first line."""
    if page == "tutorials/own_data.md":
        write_case(Path("new"), "case", "ct")
        shutil.copy("new/images/case.nii.gz", "new_ct.nii.gz")
        shutil.copy("new/labels/case.nii.gz", "truth.nii.gz")
    if page == "howto/prepare.md":
        for n in range(3):
            write_case(Path("drawing"), f"case{n}", "ct", seed=n)
            label = nib.load(f"drawing/labels/case{n}.nii.gz")
            values = np.array([0, 6, 2, 3, 1], np.uint8)[np.roll(np.asarray(label.dataobj), n, axis=1)]
            nib.save(nib.Nifti1Image(values, label.affine), f"drawing/labels/case{n}.nii.gz")
            write_case(Path("spines"), f"spine{n}", "mr", seed=n)
            vertebrae = (np.asarray(label.dataobj) == 1).astype(np.uint8)
            nib.save(nib.Nifti1Image(vertebrae, label.affine), f"spines/labels/spine{n}.nii.gz")
        shutil.move("drawing/images", "scans")
        shutil.move("drawing/labels", "drawn")
    if page == "howto/partial_labels.md":
        for folder, case, values in (("four", "four", [0, 1, 2, 3, 4]), ("livers", "only", [0, 1, 0, 0, 0])):
            for n in range(4):
                write_case(Path(folder), f"{case}{n}", "ct", seed=ord(case[0]) + n)
                label = nib.load(f"{folder}/labels/{case}{n}.nii.gz")
                drawn = np.array(values, np.uint8)[np.roll(np.asarray(label.dataobj), n, axis=1)]
                nib.save(nib.Nifti1Image(drawn, label.affine), f"{folder}/labels/{case}{n}.nii.gz")
        lines = ["image,labels,organs"]
        for n in range(4):
            lines += [f"four/images/four{n}.nii.gz,four/labels/four{n}.nii.gz,"]
            lines += [f"livers/images/only{n}.nii.gz,livers/labels/only{n}.nii.gz,liver"]
        Path("list.csv").write_text("\n".join(lines), encoding="utf-8")
        shutil.copy(prepared / "mr.h5", "mr.h5")
    if page in ("howto/predict.md", "howto/share.md"):
        shutil.copytree(trained, "runs/mine/mr2ct/attent/seed0")
        write_case(Path("."), "case", "ct")
        shutil.move("images", "scans")
        shutil.copy("scans/case.nii.gz", "new_ct.nii.gz")
        shutil.copy("labels/case.nii.gz", "truth.nii.gz")
        shutil.rmtree("labels")
    if page == "howto/predict.md":
        write_phantoms(Path("phantoms"), layouts=("chaos",))
        (case, *_) = Path("phantoms/chaos/Train_Sets/MR").iterdir()
        shutil.copytree(case, "Train_Sets/MR/1")
        shutil.copytree("Train_Sets/MR/1/T2SPIR/Ground", "Results")
        public_sets.series(Path("series"))
    if page == "howto/data_sets.md":
        public_sets.write_all(Path("."))
        write_phantoms(Path("phantoms"), layouts=("chaos",))
        shutil.move("phantoms/chaos", "CHAOS")
    if page in (
        "howto/compare.md", "howto/search.md", "howto/share.md", "howto/train.md", "reference/python.md", "reference/suite.md",
    ):  # fmt: skip
        Path("mine.toml").write_text(suite.read_text(encoding="utf-8").replace('"tiny"', '"mine"'), encoding="utf-8")
        for name in ("mr", "ct"):
            shutil.copy(prepared / f"{name}.h5", f"{name}.h5")
    if page == "tutorials/write_a_method.md":
        shutil.copytree(prepared, "prepared")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_block_has_a_language_that_says_who_runs_it(page):
    for language, text in blocks(page):
        assert language in LANGUAGES, f"{page}: a block of '{language}' that begins {text[:40]!r}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_command_of_a_page_runs(page, trained, suite, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = page.relative_to(DOCS).as_posix()
    lie_ready(name, trained, suite, prepared)
    names: dict[str, object] = {}
    ran = 0
    for language, text in blocks(page):
        first = re.match(r"# (\S+\.(?:toml|py|csv))(?:\s|$)", text)
        if first and language in ("toml", "python"):
            file = Path(first[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip():
                    run_command(line)
                    ran += 1
        elif language == "python":
            run_python(text, names)
            ran += 1
    assert ran > 0


def test_generated_pages_are_up_to_date():
    found = subprocess.run([sys.executable, DOCS / "generate.py"], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="pip install 'attent-kit[docs]'")
    pytest.importorskip("furo", reason="pip install 'attent-kit[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "html"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "index.html").exists()


def test_links_of_the_readme_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if not target.startswith(("http://", "https://")):
                assert (ROOT / target).exists(), f"{name} links to {target}"
