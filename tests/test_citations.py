"""BibTeX of the built-in methods."""

import re

import pytest

from attent_kit.plugins import load

METHODS = [component.name for component in load().registry.of("alignments") if component.plugin == "builtin"]


def entries(name):
    text = load().registry.alignment(name).bibtex
    return [entry for entry in re.split(r"\n\s*\n(?=@)", text) if entry]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_a_paper_has_entries_and_each_is_whole(name):
    paper, found = load().registry.alignment(name).paper, entries(name)
    assert bool(paper) == bool(found)
    years = set()
    for entry in found:
        assert re.match(r"@(article|inproceedings)\{\w+,\n", entry) and entry.endswith("\n}")
        assert entry.count("{") == entry.count("}")
        fields = dict(re.findall(r"^  (\w+) += (\{.*?\})(?:,)?$", entry, re.MULTILINE | re.DOTALL))
        where = "journal" if entry.startswith("@article") else "booktitle"
        assert {"author", "title", where, "year"} <= fields.keys()
        years.add(fields["year"].strip("{}"))
    assert set(re.findall(r"\b(?:19|20)\d\d\b", paper)) <= years


def test_one_key_is_one_entry():
    found = {}
    for name in METHODS:
        for entry in entries(name):
            key = re.match(r"@\w+\{(\w+),", entry)[1]
            assert found.setdefault(key, entry) == entry
    assert {"li2021attent", "zhu2017unpaired", "chen2019synergistic", "chen2020unsupervised"} <= found.keys()
