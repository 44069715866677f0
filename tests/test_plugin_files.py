"""`--plugin FILE.py`: a single file for a quick try, which a run remembers."""

import json
import os
import subprocess
import sys

import pytest

from attent_kit.plugins import FILES, load
from support.commands import train_words

SOURCE = '''
"""A method in one file."""

from attent_kit import hookimpl
from attentkit_builtin.alignments.source_only import SourceOnly
from attentkit_builtin.segmentors.smp import SmpSegmentor


class Mine(SourceOnly):
    """Another name for no adaptation."""


class Net(SmpSegmentor):
    """Another name for smp."""


@hookimpl
def attentkit_alignments():
    return {"mine": Mine}


@hookimpl
def attentkit_segmentors():
    return {"net": "my_try:Net"}
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    """my_try.py in a folder of its own; nothing of it stays in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "tries" / "my_try.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("my_try", None)
    load.cache_clear()


@pytest.fixture
def begun(file, prepared, attentkit, tmp_path):
    """A finished run of the method and the network of the file."""
    words = train_words(prepared, tmp_path / "run", "--set=segmentor.name=net", alignment="mine")
    outcome = attentkit("--plugin", file, *words)
    assert outcome.code == 0, outcome.err
    return tmp_path / "run"


def test_its_components_are_listed_as_coming_from_the_file(attentkit, file):
    listed = attentkit("--plugin", file, "list")
    assert listed.code == 0
    (line,) = [line for line in listed.out.splitlines() if "Another name for no adaptation" in line]
    assert "mine" in line and "the file" in line
    (mine,) = [c for c in json.loads(attentkit("--plugin", file, "list", "--json").out) if c["name"] == "mine"]
    assert mine["distribution"] == str(file) and mine["version"].startswith("sha256:")
    assert str(file) in attentkit("--plugin", file, "plugins").out


def test_the_next_command_knows_nothing_of_it(attentkit, file):
    attentkit("--plugin", file, "list")
    assert FILES not in os.environ
    assert "Another name" not in attentkit("list").out


def test_two_files_can_be_tried_at_once(attentkit, file):
    other = file.with_name("my_other.py")
    other.write_text(SOURCE.replace('"mine"', '"other"').replace('"net": "my_try:Net"', ""))
    listed = attentkit("--plugin", file, "--plugin", other, "list", "alignments").out
    assert "mine" in listed and "other" in listed
    sys.modules.pop("my_other", None)


def test_a_file_may_import_its_neighbour(attentkit, file):
    file.with_name("my_neighbour.py").write_text("NAME = 'beside'\n")
    file.write_text("import my_neighbour\n" + SOURCE.replace('{"mine": Mine}', "{my_neighbour.NAME: Mine}"))
    assert "beside" in attentkit("--plugin", file, "list").out
    sys.modules.pop("my_neighbour", None)


@pytest.mark.parametrize(
    "name, source, words",
    [
        ("gone.py", None, "there is no such .py file"),
        ("my-try.py", "", "as in my_try.py"),
        ("json.py", "", "as in my_json.py"),
        ("bad_try.py", "1 / 0", "bad_try.py: ZeroDivisionError"),
        ("bad_try.py", "def broken(:", "bad_try.py: SyntaxError"),
        ("bad_try.py", "import sys\nsys.exit(1)", "bad_try.py: SystemExit"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_a_sentence(attentkit, tmp_path, monkeypatch, name, source, words):
    monkeypatch.setattr(sys, "path", [*sys.path])
    if source is not None:
        (tmp_path / name).write_text(source)
    outcome = attentkit("--plugin", tmp_path / name, "list")
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err


def test_a_name_that_is_taken_already_is_said(attentkit, file):
    file.write_text(SOURCE.replace('"mine"', '"attent"'))
    outcome = attentkit("--plugin", file, "show", "attent")
    assert outcome.code == 2 and "Give it another name in the file" in outcome.err


def test_a_run_records_the_file_and_its_hash(begun, file):
    said = json.loads((begun / "env.json").read_text())["components"]
    of_file = {record["name"]: record for record in said if record.get("file")}
    assert set(of_file) == {"mine", "net"}
    assert all(record["file"] == str(file) and record["version"].startswith("sha256:") for record in of_file.values())


@pytest.mark.parametrize("lost", [(), ("env.json",)])
def test_predicting_without_it_says_what_to_type(attentkit, begun, file, volumes, tmp_path, lost):
    for name in lost:
        (begun / name).unlink()
    words = ("predict", begun, volumes / "ct/images/ct_3.nii.gz", tmp_path / "p.nii.gz")
    outcome = attentkit(*words)
    assert outcome.code == 2 and f"type `attentkit --plugin {file} ...`" in outcome.err
    assert "the alignment 'mine' and the segmentor 'net'" in outcome.err
    assert not (tmp_path / "p.nii.gz").exists()
    assert attentkit("--plugin", file, *words).code == 0


def test_going_on_without_it_says_what_to_type(attentkit, begun, file, prepared):
    outcome = attentkit(*train_words(prepared, begun, "--set=segmentor.name=net", alignment="mine"))
    assert outcome.code == 2 and f"type `attentkit --plugin {file} ...`" in outcome.err
    again = attentkit("train", "--config", begun / "config.toml", "-d", "cpu")
    assert again.code == 2 and f"type `attentkit --plugin {file} ...`" in again.err


def test_going_on_with_another_method_in_the_file_is_refused(attentkit, begun, file, prepared):
    file.write_text(SOURCE + "\n# changed\n")
    words = train_words(prepared, begun, "--set=segmentor.name=net", alignment="mine")
    outcome = attentkit("--plugin", file, *words)
    assert outcome.code == 2 and "the file has changed since" in outcome.err
    elsewhere = train_words(prepared, begun.with_name("new"), "--set=segmentor.name=net", alignment="mine")
    assert attentkit("--plugin", file, *elsewhere).code == 0


def test_the_weights_of_its_network_load_without_it(begun):
    """What the network of the file is made of is smp's, and so are the names of its weights."""
    program = (
        "import sys, json\nfrom safetensors.torch import load_file\n"
        "from attent_kit.build import Builder, configure\nfrom attent_kit.config import read_toml\n"
        "from attent_kit.interfaces import Task\nfrom attent_kit.plugins import load\n"
        "registry = load().registry\nsmp = registry.segmentor('smp')\n"
        "options = read_toml(__import__('pathlib').Path(sys.argv[1]) / 'config.toml')['alignment']['segmentor']\n"
        "network = smp(configure(smp, {k: v for k, v in options.items() if k != 'name'}, registry), Task())\n"
        "network.load_state_dict(load_file(sys.argv[1] + '/segmentor.safetensors'))\n"
        "print(json.dumps('my_try' in sys.modules))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program, begun], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0 and answer.stdout == "false\n", answer.stderr


def test_a_comparison_takes_it_and_without_it_says_what_to_type(attentkit, file, suite, tmp_path):
    words = [
        "compare",
        suite,
        "-m",
        "source_only,mine",
        "--seeds=0",
        "--directions=mr2ct",
        "-d",
        "cpu",
        "-o",
        tmp_path / "out",
    ]
    made = attentkit(*words, "--plugin", file)
    assert made.code == 0, made.err
    assert "mine" in (tmp_path / "out/table.md").read_text()
    outcome = attentkit(*words)
    assert outcome.code == 2 and f"type `attentkit --plugin {file} ...`" in outcome.err
    # A method that no run has had is not blamed on the file.
    other = attentkit(*[word if word != "source_only,mine" else "minne" for word in words])
    assert "no alignment is called 'minne'" in other.err
