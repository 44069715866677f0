"""Plugins that go wrong in every way, installed for real: each in an interpreter of its own, `attentkit` goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import train_words

HOOK = "from attent_kit import hookimpl\n\n@hookimpl\ndef {name}():\n    return {value}\n"


def offering(value, name="attentkit_alignments"):
    return HOOK.format(name=name, value=value)


HOSTILE = {
    "raises": ("raise ValueError('no licence')", "ValueError: no licence"),
    "syntax": ("def broken(:", "SyntaxError"),
    "misspells": (offering("{}", "attentkit_alignment"), "it implements a hook that does not exist"),
    "nonclass": (
        offering("{'nonclass': 3}"),
        "offers 'nonclass' as 3: give a name that could be that of a file, and a class or 'module:Class'",
    ),
    "leads": (offering("{'../leads': 'x:Y'}"), "offers '../leads' as 'x:Y': give a name"),
    "escapes": (offering("{'\\x1b[2J': 'x:Y'}"), "offers '\\x1b[2J' as 'x:Y': give a name"),
    "hangs": (
        "import time\ntry:\n    time.sleep(600)\nexcept Exception:\n    pass\n",
        "it was still being imported after",
    ),
    "exits": ("import sys\nsys.exit('bye')", "SystemExit: bye"),
    "dtype": (
        "import torch\ntorch.set_default_dtype(torch.float64)\n" + offering("{'dtype': 'x:Y'}"),
        "importing it changes torch's default dtype, for every method alike",
    ),
    "future": ("ATTENTKIT_INTERFACE = '9.2'\n" + offering("{'future': 'x:Y'}"), "install a newer attent-kit"),
    "past": ("ATTENTKIT_INTERFACE = '0.3'\n" + offering("{'past': 'x:Y'}"), "install a newer release of the plugin"),
    "nonsense": ("ATTENTKIT_INTERFACE = 1\n", "ATTENTKIT_INTERFACE is 1"),
}
"""Source of a plugin's module, and what is said of it. All of these are set aside."""
PRINTS = "print('hello from a plugin')\n" + offering("{'prints': 'x:Y'}")
TAKES = offering("{'attent': 'x:Y'}")


@pytest.fixture
def site(tmp_path):
    """`site(name, source)` installs a distribution in a folder of its own; `site.run(*words)` is `attentkit` beside it."""
    return Site(tmp_path / "site")


class Site:
    """A folder of installed distributions, and an `attentkit` that sees them."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def __call__(self, name, source):
        module = f"attentkit_{name}_hostile"
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"attentkit_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: attentkit-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[attentkit]\n{name} = {module}\n")
        (info / "RECORD").write_text("")

    def run(self, *words, seconds="1"):
        path = os.pathsep.join([str(self.folder), *(place for place in sys.path if place)])
        environment = {**os.environ, "PYTHONPATH": path, "ATTENTKIT_IMPORT_SECONDS": seconds}
        program = [sys.executable, "-c", "from attent_kit.cli import main; main()", *(str(word) for word in words)]
        return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_set_aside_with_a_sentence_and_everything_else_is_listed(site, name):
    source, sentence = HOSTILE[name]
    site(name, source)
    # The time limit is for the one that hangs: importing torch may take longer.
    answer = site.run("plugins", "--json", seconds="1" if name == "hangs" else "60")
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    (broken,) = [q for q in said["quarantined"] if q["name"] == name]
    assert sentence in broken["error"]
    (builtin,) = [p for p in said["plugins"] if p["name"] == "builtin"]
    assert "alignments:attent" in builtin["offers"]


def test_help_does_not_even_look_at_plugins(site):
    for name, (source, _) in HOSTILE.items():
        site(name, source)
    answer = site.run("--help", seconds="60")
    assert answer.returncode == 0 and "attentkit" in answer.stdout and answer.stderr == ""


def test_what_a_plugin_prints_does_not_spoil_json(site):
    site("prints", PRINTS)
    answer = site.run("list", "--json", seconds="60")
    assert {"prints", "attent"} <= {component["name"] for component in json.loads(answer.stdout)}
    assert "hello from a plugin" in answer.stderr


def test_a_name_taken_twice_is_said_and_other_names_go_on(site):
    site("takes", TAKES)
    answer = site.run("list", seconds="60")
    assert answer.returncode == 0 and "source_only" in answer.stdout
    assert "'attent' is offered as one of the alignments by both attent-kit" in answer.stderr
    refused = site.run("show", "attent", seconds="60")
    assert refused.returncode == 2 and "set ATTENTKIT_PLUGINS=builtin" in refused.stderr


def test_a_class_that_cannot_be_imported_is_met_only_by_who_asks_for_it(site):
    site("lazy", offering("{'lazy': 'attentkit_lazy_hostile_class:Lazy'}"))
    Path(site.folder, "attentkit_lazy_hostile_class.py").write_text("import sys\nprint('noise')\nsys.exit(3)\n")
    assert "lazy" in site.run("list", seconds="60").stdout
    answer = site.run("show", "lazy", "--json", seconds="60")
    assert (answer.returncode, answer.stdout) == (1, "noise\n"[:0])
    assert (
        "alignment 'lazy' of attentkit-lazy 1.0 cannot be imported" in answer.stderr and "SystemExit" in answer.stderr
    )


def test_a_built_in_is_trained_beside_all_of_them_as_without_them(site, prepared, tmp_path):
    for name, (source, _) in HOSTILE.items():
        if name != "hangs":  # which would cost a time limit that is long enough for torch
            site(name, source)
    site("prints", PRINTS)
    site("takes", TAKES)
    answer = site.run(*train_words(prepared, tmp_path / "run", "--json"), seconds="60")
    assert answer.returncode == 0, answer.stderr
    assert {score["metric"] for score in json.loads(answer.stdout)} >= {"dice"}
    assert (tmp_path / "run/segmentor.safetensors").exists()
