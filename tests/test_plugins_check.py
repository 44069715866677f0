"""`attentkit plugins check` and `pytest --attentkit`: the kit from the outside."""

import json
import os
import subprocess
import sys

import pytest

from attent_kit.plugins import load
from attent_kit.scaffold import new_plugin
from attent_kit.testing import CHECKS, checks_of

pytest_plugins = ["pytester"]

BROKEN = '''
from attent_kit import hookimpl
from attentkit_builtin.alignments.source_only import SourceOnly


class Mine(SourceOnly):
    """Answers half."""

    predicts_with = ""

    def predict(self, x_t):
        return super().predict(x_t)[:, :, ::2]


@hookimpl
def attentkit_alignments():
    return {"mine": Mine}
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_check.py").write_text(BROKEN)
    yield tmp_path / "my_check.py"
    sys.modules.pop("my_check", None)
    load.cache_clear()


def verdicts(outcome):
    return {v["check"]: v for v in json.loads(outcome.out)}


def test_a_file_is_checked_and_a_failure_ends_in_exit_code_1(attentkit, file):
    outcome = attentkit(
        "plugins", "check", file, "--json", "-k", "predict-answers", "-k", "documented", "-k", "quickly"
    )
    assert outcome.code == 1
    said = verdicts(outcome)
    assert {name: v["outcome"] for name, v in said.items()} == {
        "predict-answers": "fail", "documented": "pass", "registers-quickly": "skip",
    }  # fmt: skip
    assert said["predict-answers"]["found"].startswith("predict returns (2, 5, 32, 64), not (2, 5, 64, 64).")
    assert "finite logits" in said["predict-answers"]["meaning"]
    assert "single file" in said["registers-quickly"]["found"]


def test_the_table_has_what_failed_with_how_to_mend_it_and_counts(attentkit, file):
    outcome = attentkit("plugins", "check", "mine", "--plugin", file, "-k", "predict-answers", "-k", "documented")
    assert outcome.code == 1
    assert "1 passed, 1 failed, 0 skipped." in outcome.out
    assert "not (2, 5, 64, 64)" in " ".join(outcome.out.split()) and "finite logits" in outcome.out


def test_what_passes_ends_in_exit_code_0(attentkit):
    outcome = attentkit("plugins", "check", "fcn", "-k", "classes", "-k", "answers")
    assert outcome.code == 0 and "1 passed, 0 failed, 0 skipped." in outcome.out


def test_options_lie_over_the_small_ones(attentkit):
    outcome = attentkit("plugins", "check", "sifa", "--json", "-k", "answers", "--set", "stride=4")
    assert outcome.code == 0
    assert attentkit("plugins", "check", "sifa", "-k", "answers", "--set", "strid=4").code == 2


def test_the_checks_are_listed_with_what_they_mean(attentkit):
    listed = json.loads(attentkit("plugins", "check", "--list", "--json").out)
    assert [c["check"] for c in listed] == [c.name for c in CHECKS] and all(c["meaning"] for c in listed)
    assert "two-processes" in attentkit("plugins", "check", "--list", "-k", "processes").out


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["attnt"], "Did you mean 'attent'?"),
        (["attent", "-k", "nothing-of-this-name"], "no check has nothing-of-this-name in its name"),
        ([], "attentkit list"),
        (["gone.py"], "there is no such .py file"),
        (["builtin", "--set", "no_such_option=1"], "'no_such_option'"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(attentkit, monkeypatch, words, sentence):
    monkeypatch.setenv("ATTENTKIT_PLUGINS", "builtin")
    load.cache_clear()
    outcome = attentkit("plugins", "check", *words)
    load.cache_clear()
    assert outcome.code == 2 and sentence in outcome.err and "Traceback" not in outcome.err


def test_a_folder_without_a_plugin_is_a_sentence(attentkit, tmp_path):
    assert "there is no such file" in attentkit("plugins", "check", tmp_path).err
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    outcome = attentkit("plugins", "check", tmp_path)
    assert outcome.code == 2 and "declares no plugin" in outcome.err


def test_a_project_is_checked_from_its_folder_before_it_is_installed(attentkit, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    new_plugin("quick_check", "segmentor", tmp_path / "p")
    outcome = attentkit("plugins", "check", tmp_path / "p", "--json", "-k", "classes", "-k", "registers")
    assert outcome.code == 0, outcome.out
    assert {v["outcome"] for v in verdicts(outcome).values()} == {"pass"} and len(verdicts(outcome)) == 4
    for name in [name for name in sys.modules if name.startswith("attentkit_quick_check")]:
        del sys.modules[name]


def test_a_plugin_that_does_not_load_fails_with_its_sentence(attentkit, install, found):
    found(install("sick", "raise ValueError('no licence')"))
    outcome = attentkit("plugins", "check", "sick", "--json")
    assert outcome.code == 1
    (verdict,) = json.loads(outcome.out)
    assert verdict["check"] == "loads" and "no licence" in verdict["found"]


def test_a_class_that_cannot_be_imported_fails_with_its_sentence(attentkit, install, found):
    hook = "@hookimpl\ndef attentkit_alignments():\n    return {'gone': 'nowhere_at_all:X'}\n"
    source = f"from attent_kit import hookimpl\n\n{hook}"
    found(install("gone", source))
    outcome = attentkit("plugins", "check", "--json")
    (verdict,) = json.loads(outcome.out)
    assert (outcome.code, verdict["check"], verdict["component"]) == (1, "loads", "gone")


# pytest --attentkit


@pytest.fixture
def inner(pytester, monkeypatch):
    """pytest with the plugin and no other, in this process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda *words: pytester.runpytest_inprocess("-p", "attent_kit.pytest_plugin", *words)


def test_pytest_makes_each_check_a_test_that_k_chooses(inner):
    answer = inner("-v", "--attentkit", "fcn", "-k", "answers or sizes or documented")
    answer.assert_outcomes(passed=3, deselected=12)
    answer.stdout.fnmatch_lines(["*fcn::forward-answers PASSED*"])


def test_a_failing_check_is_a_failing_test_with_its_sentence_alone(inner, file, monkeypatch):
    monkeypatch.setenv("ATTENTKIT_PLUGIN_FILES", str(file))
    load.cache_clear()
    answer = inner("--attentkit", "mine", "-k", "predict-answers")
    answer.assert_outcomes(failed=1, deselected=len(checks_of("alignments")) - 1)
    said = answer.stdout.str()
    assert "(2, 5, 32, 64), not (2, 5, 64, 64)." in said and "finite logits" in said
    assert "Traceback" not in said and "def runtest" not in said


def test_an_unknown_name_is_a_sentence_of_pytest(inner):
    answer = inner("--attentkit", "attnt")
    assert answer.ret == 4
    answer.stderr.fnmatch_lines(["*Did you mean 'attent'?*"])


def test_the_installed_pytest_plugin_imports_no_torch_unless_it_is_used(tmp_path):
    info = tmp_path / "site/attent_kit_pytest-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attent-kit-pytest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nattentkit = attent_kit.pytest_plugin\n")
    test = "def test_it(pytestconfig):\n    import sys\n    assert pytestconfig.getoption('--attentkit') == []\n"
    (tmp_path / "test_it.py").write_text(test + "    assert 'torch' not in sys.modules\n")
    path = os.pathsep.join([str(tmp_path / "site"), *(place for place in sys.path if place)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": path}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
