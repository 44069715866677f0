"""The distributions below plugins/, as wheels in an environment of their own: each passes its tests, and each is a row."""

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = sorted(folder.name for folder in (ROOT / "plugins").glob("attentkit-*"))
ALIGNMENTS = {
    "best": "attentkit-recipes",
    "cut": "attentkit-recipes",
    "dg_tta": "attentkit-recipes",
    "fda": "attentkit-fda",
    "gin": "attentkit-gin",
    "labels_only": "attentkit-recipes",
    "mmd": "attentkit-mmd",
    "selftrain": "attentkit-selftrain",
    "sfda": "attentkit-recipes",
    "tent": "attentkit-recipes",
    "translate_selftrain": "attentkit-recipes",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment that holds wheels of attent-kit and of every distribution, and sees the libraries
    that this one has, but no source folder."""
    pytest.importorskip("hatchling")
    home = tmp_path_factory.mktemp("wheels")
    sources = [ROOT, *(ROOT / "plugins" / name for name in DISTRIBUTIONS)]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", home / "made", *sources], check=True)
    venv.create(home / "env", with_pip=False)
    python = home / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (inside,) = json.loads(run(python, "-c", "import json, site; print(json.dumps(site.getsitepackages()[:1]))"))
    wheels = sorted((home / "made").glob("*.whl"))
    assert len(wheels) == len(sources)
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", inside, *wheels], check=True)
    Path(inside, "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def run(python, *words, cwd=None):
    """What a command of that interpreter prints; its output is shown if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ATTENTKIT_PLUGINS")}
    done = subprocess.run([python, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attentkit(python, *words, cwd=None):
    return run(python, "-c", "import sys; from attent_kit.cli import run; sys.exit(run(sys.argv[1:]))", *words, cwd=cwd)


def test_the_wheels_and_not_the_sources_are_what_is_imported(python, tmp_path):
    line = "import attent_kit, attentkit_fda; print(attent_kit.__file__, attentkit_fda.__file__)"
    where = run(python, "-c", line, cwd=tmp_path)
    assert str(ROOT) not in where


def test_the_wheel_lists_the_grid_of_the_demo_far_from_the_repository(python, tmp_path):
    grid = json.loads(attentkit(python, "compare", "--dry-run", "--json", cwd=tmp_path))
    assert [cell["row"] for cell in grid][0] == "W/o adaptation" and len(grid) == 5
    assert list(tmp_path.iterdir()) == []


def test_the_source_distribution_builds_the_same_wheel(python, tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=ROOT, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, archive], check=True)
    (again,) = tmp_path.glob("*.whl")
    (straight,) = (Path(python).parents[2] / "made").glob("attent_kit-*.whl")
    assert names_in(again) == names_in(straight)
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"CITATION.cff", "docs/index.md", "tests/conftest.py", "benchmarks/phantom.toml"} <= inside


def names_in(wheel):
    """Files of a wheel; its own record and metadata of the archive it came from are the same by construction."""
    with zipfile.ZipFile(wheel) as file:
        return sorted(file.namelist())


def test_the_wheel_holds_the_templates_of_new_plugins(python, tmp_path):
    assert "attentkit plugins check quick_try" in attentkit(python, "plugins", "new", "quick_try", cwd=tmp_path)
    assert (tmp_path / "attentkit-quick_try/attentkit_quick_try/alignment.py").exists()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_passes_its_own_tests(python, name, tmp_path):
    shutil.copytree(ROOT / "plugins" / name / "tests", tmp_path / "tests")
    assert " passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)


def test_all_are_listed_with_their_distribution_and_none_imports_torch_to_say_so(python, tmp_path):
    offered = json.loads(attentkit(python, "list", "alignments", "--json", cwd=tmp_path))
    found = {one["name"]: one["distribution"] for one in offered}
    assert found | ALIGNMENTS == found
    segmentors = {one["name"] for one in json.loads(attentkit(python, "list", "segmentors", "--json", cwd=tmp_path))}
    assert {"monai_basic_unet", "monai_segresnet", "monai_swin_unetr"} <= segmentors
    line = "import sys; from attent_kit.plugins import load; load(); print({'torch', 'monai'} & {*sys.modules})"
    assert run(python, "-c", line, cwd=tmp_path).strip() == "set()"


def test_each_alignment_is_a_row_of_a_comparison(python, suite, tmp_path):
    words = ["compare", suite, "-m", ",".join(ALIGNMENTS), "--seeds", "0", "--directions", "mr2ct", "-d", "cpu"]
    words += ["--set", "adapt_steps=2"]  # of those that go on from another run
    attentkit(python, *words, "--out", tmp_path / "out", cwd=tmp_path)
    table = (tmp_path / "out" / "table.md").read_text()
    assert all(f"| {name} |" in table for name in ALIGNMENTS)
