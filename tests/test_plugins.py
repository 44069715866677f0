"""Installed distributions to a registry. A plugin that cannot be loaded is set aside with a sentence, never fatal."""

import sys
from importlib.metadata import EntryPoint, entry_points

import pytest

from attent_kit.errors import PluginConflict
from attent_kit.plugins import Plugin, load, load_from
from attent_kit.registry import ALL_KINDS

GOOD = """
from attent_kit import hookimpl
from attent_kit.interfaces import Alignment

class Mine(Alignment):
    '''A method of mine.'''

@hookimpl
def attentkit_alignments():
    return {"mine": Mine}
"""


def offering(value, hook="attentkit_alignments"):
    return f"from attent_kit import hookimpl\n\n@hookimpl\ndef {hook}():\n    return {value}\n"


def names(loaded, kind="alignments"):
    return [component.name for component in loaded.registry.of(kind)]


# Loading


def test_the_built_ins_come_through_the_same_door_as_strangers():
    (builtin,) = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    assert builtin.value == "attentkit_builtin"
    assert builtin.dist.name == "attent-kit"
    loaded = load_from([builtin])
    assert loaded.quarantined == ()
    assert {kind for kind in ALL_KINDS if loaded.registry.of(kind)} == set(ALL_KINDS)
    assert {component.distribution for component in loaded.registry} == {"attent-kit"}


def test_what_a_plugin_offers_carries_its_distribution_and_version(install):
    loaded = load_from(install("good", GOOD, version="3.2"))
    assert loaded.plugins == (Plugin("good", "attentkit-good", "3.2"),)
    mine = loaded.registry.find("alignments", "mine")
    assert (mine.plugin, mine.distribution, mine.version) == ("good", "attentkit-good", "3.2")
    assert mine.load().__doc__ == "A method of mine."


def test_an_entry_point_without_a_distribution_loads_too(install):
    install("good", GOOD)
    loaded = load_from([EntryPoint("good", "attentkit_good_under_test", "attentkit")])
    assert loaded.plugins == (Plugin("good", "unknown", "unknown"),)
    assert names(loaded) == ["mine"]


def test_a_plugin_may_offer_several_kinds_at_once(install):
    source = offering("{'a': 'somewhere:A', 'b': 'somewhere:B'}") + offering("{'n': 'nets:N'}", "attentkit_segmentors")
    loaded = load_from(install("several", source))
    assert (names(loaded), names(loaded, "segmentors")) == (["a", "b"], ["n"])


def test_a_plugin_may_offer_a_comparison(install, tmp_path):
    suite = tmp_path / "hearts.toml"
    suite.write_text('title = "Hearts"\n')
    loaded = load_from(install("suite", offering({"hearts": str(suite)}, "attentkit_suites")))
    hearts = loaded.registry.find("suites", "hearts")
    assert (hearts.target, hearts.summary()) == (str(suite), "Hearts")


def test_a_plugin_without_any_hook_loads_and_offers_nothing(install):
    loaded = load_from(install("empty", "X = 1\n"))
    assert (len(loaded.plugins), len(loaded.registry), loaded.quarantined) == (1, 0, ())


def test_no_plugin_at_all_is_an_empty_registry():
    loaded = load_from([])
    assert (len(loaded.registry), loaded.plugins, loaded.quarantined) == (0, (), ())


def test_the_installed_plugins_are_loaded_once(install, found):
    found(install("good", GOOD))
    assert names(load()) == ["mine"]
    assert load() is load()


# Two of a name


def test_a_name_that_two_plugins_offer_is_answered_with_both(install):
    install("kernels", GOOD, version="2.0")
    loaded = load_from(install("mmd", GOOD, version="0.1"))
    with pytest.raises(PluginConflict, match=r"'mine'.*attentkit-kernels 2\.0.*attentkit-mmd 0\.1"):
        loaded.registry.alignment("mine")
    assert [plugin.name for plugin in loaded.plugins] == ["kernels", "mmd"]


def test_a_contested_name_is_settled_by_choosing_plugins(install):
    install("kernels", GOOD)
    loaded = load_from(install("mmd", GOOD), only="mmd")
    assert loaded.registry.find("alignments", "mine").plugin == "mmd"


# ATTENTKIT_PLUGINS


def test_only_the_plugins_that_are_named_are_loaded(install):
    install("good", GOOD)
    points = install("other", offering("{'other': 'x:Y'}")) + list(entry_points(group="attentkit"))
    assert names(load_from(points, only="good, other")) == ["mine", "other"]
    assert names(load_from(points, only="other")) == ["other"]
    assert names(load_from(points, only="")) == []


def test_a_plugin_that_is_not_named_is_not_even_imported(install):
    install("good", GOOD)
    loaded = load_from(install("bad", "raise SystemExit"), only="good")
    assert loaded.quarantined == ()
    assert "attentkit_bad_under_test" not in sys.modules


def test_the_variable_is_read_from_the_environment(install, found):
    install("good", GOOD)
    found(install("other", offering("{'other': 'x:Y'}")), only="other")
    assert names(load()) == ["other"]


def test_naming_a_plugin_that_is_not_installed_is_said(install):
    loaded = load_from(install("kernels", GOOD), only="kernel,kernels")
    assert names(loaded) == ["mine"]
    (missing,) = loaded.quarantined
    assert missing.name == "kernel"
    assert missing.error.startswith("ATTENTKIT_PLUGINS ") and missing.error.endswith("'kernels'?")


# Quarantine


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('no licence')", ["ValueError: no licence"]),
        ("import no_such_dependency_of_ours", ["ModuleNotFoundError", "no_such_dependency_of_ours"]),
        ("def broken(:", ["SyntaxError"]),
        ("raise SystemExit(3)", ["SystemExit: 3"]),
        (offering("1 / 0"), ["ZeroDivisionError"]),
        (offering("{}", "attentkit_alignment"), ["attentkit_alignment'", "attentkit_alignments, attentkit_suites"]),
        (offering("['mine']"), ["attentkit_alignments", "mapping", "not list"]),
        (offering("None"), ["attentkit_alignments", "mapping", "not NoneType"]),
        (offering("{'mine': 3}"), ["attentkit_alignments", "'mine' as 3", "a class or 'module:Class'"]),
        (offering("{'mine': 'mine.Mine'}"), ["'mine.Mine'", "a class or 'module:Class'"]),
        (offering("{1: 'mine:Mine'}"), ["offers 1 as 'mine:Mine'", "a name that could be that of a file"]),
        (offering("{'s': 'mine:Mine'}", "attentkit_suites"), ["attentkit_suites", "the path of a TOML file"]),
        (offering("{'good': 'a:B', 'bad': object()}"), ["'bad'"]),
        (GOOD.replace("alignments()", "alignments(registry)"), ["registry"]),
    ],
)
def test_a_broken_plugin_is_set_aside_with_a_sentence_and_the_others_load(install, source, words):
    install("broken", source, version="0.9")
    loaded = load_from(install("good", GOOD))
    (broken,) = loaded.quarantined
    assert (broken.name, broken.distribution, broken.version) == ("broken", "attentkit-broken", "0.9")
    for word in words:
        assert word in broken.error
    assert [plugin.name for plugin in loaded.plugins] == ["good"]
    assert [component.name for component in loaded.registry] == ["mine"]


def test_an_entry_point_to_nothing_is_set_aside(install):
    points = install("good", GOOD) + [EntryPoint("gone", "no_such_module_of_ours", "attentkit")]
    loaded = load_from(points)
    assert [(q.name, "no_such_module_of_ours" in q.error) for q in loaded.quarantined] == [("gone", True)]
    assert names(loaded) == ["mine"]


def test_stopping_with_the_keyboard_is_not_mistaken_for_a_broken_plugin(install):
    with pytest.raises(KeyboardInterrupt):
        load_from(install("slow", "raise KeyboardInterrupt"))


def test_the_commands_show_what_was_set_aside(install, found, attentkit):
    install("broken", "raise ValueError('no licence')")
    found(install("good", GOOD))
    assert "attentkit plugins" in attentkit("list").err
    answer = attentkit("plugins")
    assert answer.code == 0
    for words in ("attentkit-broken 1.0", "ValueError: no licence", "attentkit-good 1.0", "mine"):
        assert words in answer.out
