"""`attentkit plugins new`: a project that is a plugin at once, and refusals that leave nothing behind."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from attent_kit import INTERFACE_VERSION
from attent_kit.scaffold import KINDS, new_plugin

ATTENTKIT = "from attent_kit.cli import main; main()"
CHEAP = "documented or options or presets or stages or answers or equal_features or recognised or two-classes"
"""Tests of the projects that are made here; the complete run makes all of them."""


def install(project, site):
    """Note `project` in the folder `site`, as pip does it for an editable one."""
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = site / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n")
    points = declared["entry-points"]["attentkit"]
    (info / "entry_points.txt").write_text("[attentkit]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()))
    (info / "RECORD").write_text("")


def python(path, *words, cwd):
    command = [sys.executable, *(str(word) for word in words)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


def test_new_projects_of_every_kind_are_plugins_and_pass_their_own_tests(attentkit, tmp_path):
    """All of them side by side, as somebody would have them who writes one of each."""
    site = tmp_path / "site"
    for kind in KINDS:
        outcome = attentkit("plugins", "new", f"quick_{kind}", "--kind", kind, "--out", tmp_path / kind)
        assert outcome.code == 0 and outcome.out.count("\n  ") == 3
        install(tmp_path / kind, site)
    path = os.pathsep.join([str(site), *(str(tmp_path / kind) for kind in KINDS), *(p for p in sys.path if p)])
    chosen = [] if "ATTENTKIT_COMPLETE" in os.environ else ["-k", CHEAP]
    tests = python(
        path,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        *KINDS,
        *chosen,
        cwd=tmp_path,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    offers = python(path, "-c", ATTENTKIT, "plugins", "--json", cwd=tmp_path)
    for kind in KINDS:
        assert f'"{KINDS[kind].kinds}:quick_{kind}"' in offers.stdout, offers.stderr
    lint = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if lint:
        for kind in KINDS:
            words = [lint, "check", "--isolated", "--select=E,F,I,UP,B", "--line-length=120"]
            clean = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path / kind)
            assert clean.returncode == 0, clean.stdout


def test_a_new_project_says_what_it_is_and_leaves_the_licence_to_its_author(tmp_path):
    new_plugin("quick_try", "alignment", tmp_path / "p")
    made = {path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*") if path.is_file()}
    assert made == {
        "pyproject.toml", "README.md", ".gitignore", "attentkit_quick_try/__init__.py",
        "attentkit_quick_try/alignment.py", "tests/test_contract.py", "tests/test_alignment.py",
    }  # fmt: skip
    project = tomllib.loads((tmp_path / "p/pyproject.toml").read_text())["project"]
    assert project["name"] == "attentkit-quick_try" and "license" not in project
    assert project["entry-points"]["attentkit"] == {"quick_try": "attentkit_quick_try"}
    assert "no licence yet" in (tmp_path / "p/README.md").read_text()
    source = (tmp_path / "p/attentkit_quick_try/__init__.py").read_text()
    assert f'ATTENTKIT_INTERFACE = "{INTERFACE_VERSION}"' in source
    assert '"attentkit_quick_try.alignment:QuickTry"' in source


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_is_filled_in_whole(tmp_path, kind):
    new_plugin("quick_try", kind, tmp_path / "p")
    for path in (tmp_path / "p").rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text()
            if path.suffix == ".py":
                compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize(
    "name, proposal",
    [
        ("Mine", "mine"), ("my-method", "my_method"), ("attentkit-mine", "mine"), ("attentkit_mine", "mine"),
        ("class", "my_class"), ("3d", "d"), ("", "mine"), ("../up", "up"), ("a b", "a_b"), ("ä", "mine"), ("x" * 41, "x" * 40),
    ],
)  # fmt: skip
def test_a_bad_name_is_refused_with_a_better_one(attentkit, tmp_path, name, proposal):
    outcome = attentkit("plugins", "new", name, "--out", tmp_path / "p")
    assert outcome.code == 2 and "cannot name a plugin" in outcome.err
    assert f"attentkit plugins new {proposal} --kind alignment" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_a_component_has_already_is_refused(attentkit, tmp_path):
    outcome = attentkit("plugins", "new", "attent", "--out", tmp_path / "p")
    assert outcome.code == 2 and "'attent'" in outcome.err and "my_attent" in outcome.err
    # A segmentor may be called so.
    assert attentkit("plugins", "new", "attent", "--kind", "segmentor", "--out", tmp_path / "p").code == 0


def test_an_existing_folder_or_file_is_left_alone(attentkit, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/mine.txt").write_text("mine")
    outcome = attentkit("plugins", "new", "quick_try", "--out", tmp_path / "p")
    assert outcome.code == 2 and str(tmp_path / "p") in outcome.err and "--out" in outcome.err
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "mine.txt"]


def test_an_unknown_kind_is_refused_with_the_nearest(attentkit, tmp_path):
    outcome = attentkit("plugins", "new", "quick_try", "--kind", "segmenter", "--out", tmp_path / "p")
    assert outcome.code == 2 and "Did you mean 'segmentor'?" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, *arguments, **more):
        if path.suffix == ".py":
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        new_plugin("quick_try", "alignment", tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_the_real_installer_makes_a_plugin_of_it(tmp_path):
    """pip, from the folder, without the network: hatchling must be there."""
    pytest.importorskip("hatchling")
    new_plugin("quick_try", "alignment", tmp_path / "p")
    words = [
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        tmp_path / "site",
        tmp_path / "p",
    ]
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(tmp_path / "site"), *(place for place in sys.path if place)])
    offers = python(path, "-c", ATTENTKIT, "plugins", "--json", cwd=tmp_path)
    assert '"alignments:quick_try"' in offers.stdout
