"""README's table of methods is what the registry and the result file say."""

import sys
from pathlib import Path

import pytest

from attent_kit.plugins import load

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import methods  # noqa: E402


def test_the_table_of_methods_is_generated_from_the_registry_and_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, begin, rest = readme.partition(methods.BEGIN)
    shown, end, _ = rest.partition(methods.END)
    assert begin and end
    assert shown.strip() == methods.table(load().registry), "run `python benchmarks/methods.py --write`"


def test_every_method_says_what_it_aligns_and_names_its_file():
    table = methods.table(load().registry)
    for component in load().registry.of("alignments"):
        (line,) = [line for line in table.splitlines() if line.startswith(f"| [`{component.name}`](")]
        file = line.partition("](")[2].partition(")")[0]
        assert (ROOT / file).is_file()
        assert component.load().aligns and component.load().aligns in line


def test_the_averages_are_those_of_the_table_beside_them():
    """The unrounded numbers of the .csv, rounded, stand in the .md of the same run."""
    shown = (methods.RESULTS.with_suffix(".md")).read_text(encoding="utf-8")
    found = methods.averages(methods.RESULTS)
    assert len(found) == 24
    for (label, _), value in found.items():
        assert any(line.startswith(f"| {label} |") and f"{value:.1f} ±" in line for line in shown.splitlines()), label


def test_a_method_without_a_result_would_be_noticed(monkeypatch, tmp_path):
    lacking = tmp_path / "results.csv"
    lines = methods.RESULTS.read_text(encoding="utf-8").splitlines(keepends=True)
    lacking.write_text("".join(line for line in lines if ",AttENT," not in line), encoding="utf-8")
    monkeypatch.setattr(methods, "RESULTS", lacking)
    with pytest.raises(KeyError):
        methods.table(load().registry)
