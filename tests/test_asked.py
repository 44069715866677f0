"""Names on a command line are looked up before torch is imported."""

import subprocess
import sys

import pytest

from attent_kit.asked import look_up, suite_file
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.plugins import load

SUITE = """
name = "mine"
directions = ["mr2ct"]
[phantom]
[[rows]]
label = "A"
alignment = "{}"
[variants.quick]
seeds = [1]
"""


@pytest.fixture
def suite(tmp_path):
    def written(alignment="attent"):
        path = tmp_path / "mine.toml"
        path.write_text(SUITE.format(alignment))
        return str(path)

    return written


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["compare", "-m", "atent"], "attent"),
        (["compare", "fantom"], "phantom"),
        (["compare", "--select", "entrop"], "entropy"),
        (["compare", "--track", "tensorbord"], "tensorboard"),
        (["compare", "--launcher", "locl"], "local"),
        (["compare", "mine.toml", "--variant", "quik"], "quick"),
        (["compare", "wrong.toml"], "cyclegan"),
        (["train", "atent", "--source", "mr.h5", "--target", "ct.h5"], "attent"),
    ],
)
def test_a_slip_of_the_keyboard_is_answered_without_torch(suite, tmp_path, words, near):
    suite("cyclegann")
    (tmp_path / "mine.toml").rename(tmp_path / "wrong.toml")
    suite()
    script = "import sys; from attent_kit.cli import run; code = run(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"] and f"'{near}'" in done.stderr


def test_what_is_there_comes_through_and_what_is_nowhere_near_is_left_to_the_command(suite):
    registry = load().registry
    assert look_up(registry, alignments=["attent"], suite=suite(), variant="quick", select="target-oracle") is registry
    assert look_up(registry, alignments=["from_a_plugin_that_is_gone"]) is registry
    assert look_up(registry, suite=suite("from_a_plugin_that_is_gone")) is registry


@pytest.mark.parametrize("rows", ["rows = 3", "rows = [3]", 'rows = [{ alignment = 3 }, { label = "x" }]'])
def test_a_suite_of_another_shape_is_left_to_the_command(tmp_path, rows):
    path = tmp_path / "odd.toml"
    path.write_text(rows)
    assert look_up(load().registry, suite=str(path)) is load().registry


def test_a_suite_is_a_file_or_an_installed_one(tmp_path):
    registry = load().registry
    assert suite_file("phantom", registry).name == "phantom.toml"
    assert suite_file("some/where.toml", registry).parts == ("some", "where.toml")
    with pytest.raises(ConfigError, match="phantom"):
        suite_file("phantm", registry)
    with pytest.raises(AttentKitError, match=r"gone\.toml"):
        look_up(registry, suite=str(tmp_path / "gone.toml"))
