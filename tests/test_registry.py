"""Names to classes, with where they come from."""

import sys

import pytest

from attent_kit.errors import AttentKitError, PluginConflict, UnknownComponent
from attent_kit.interfaces import INTERFACES, Segmentor, Translator
from attent_kit.launcher import Launcher
from attent_kit.layouts import Layout
from attent_kit.registry import CLASS_KINDS, Component, Registry
from attent_kit.selectors import Selector
from attent_kit.tracker import Tracker
from support.messages import quotes

IMPORT = "from attent_kit.interfaces import Segmentor\n"


class Net(Segmentor):
    """A net of six layers.

    And more.
    """


class Bare(Translator):
    pass


def offer(name="net", target=Net, kind="segmentors", plugin="mine", distribution="attentkit-mine", version="0.1"):
    return Component(kind, name, target, plugin, distribution, version)


def registry_of(*components):
    registry = Registry()
    for component in components:
        registry.add(component)
    return registry


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that a reference can point to; nothing of it is imported yet."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_component_is_found_by_kind_and_name_with_where_it_comes_from():
    registry = registry_of(offer(), offer(kind="translators"))
    found = registry.find("translators", "net")
    assert (found.kind, found.plugin, found.distribution, found.version) == (
        "translators",
        "mine",
        "attentkit-mine",
        "0.1",
    )
    assert registry.resolve("segmentors", "net") is Net
    assert len(registry) == 2


def test_components_are_listed_by_kind_in_the_order_of_the_offers():
    registry = registry_of(offer("b"), offer("x", kind="translators"), offer("a"))
    assert [c.name for c in registry.of("segmentors")] == ["b", "a"]
    assert [c.name for c in registry] == ["b", "x", "a"]
    assert registry.of("alignments") == []


def test_an_unknown_name_is_answered_with_the_nearest_of_its_kind():
    registry = registry_of(offer("attention"), offer("attent", kind="alignments"), offer("pixel", kind="alignments"))
    with pytest.raises(UnknownComponent) as caught:
        registry.find("alignments", "atent")
    assert quotes(str(caught.value), "'atent'", "'attent'?", "`attentkit list alignments`", "2")
    with pytest.raises(UnknownComponent, match="'zzz'") as caught:
        registry.find("alignments", "zzz")
    assert "?" not in str(caught.value)


def test_an_empty_registry_still_answers_with_a_sentence():
    with pytest.raises(UnknownComponent, match="no segmentor is called 'net'"):
        Registry().resolve("segmentors", "net")


def test_a_reference_is_imported_when_it_is_first_asked_for(module):
    module("lazy_net", f"{IMPORT}class Lazy(Segmentor):\n    '''Sleeps.'''\n")
    registry = registry_of(offer("lazy", "lazy_net:Lazy"))
    assert registry.find("segmentors", "lazy").summary() == "Sleeps."
    assert "lazy_net" not in sys.modules
    assert registry.resolve("segmentors", "lazy") is sys.modules["lazy_net"].Lazy


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency_of_ours", "ModuleNotFoundError: No module named 'no_such_dependency_of_ours'"),
        ("raise ValueError('no licence')", "ValueError: no licence"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Other: pass", "AttributeError"),
    ],
)
def test_a_reference_that_cannot_be_imported_is_one_sentence_with_the_distribution(module, source, reason):
    module("broken_net", source)
    with pytest.raises(AttentKitError) as caught:
        registry_of(offer("broken", "broken_net:Net")).resolve("segmentors", "broken")
    assert str(caught.value).startswith("segmentor 'broken' of attentkit-mine 0.1 cannot be imported")
    assert reason in str(caught.value)


def test_a_reference_to_something_else_than_a_class_is_refused(module):
    module("function_net", "def Net(): pass\n")
    with pytest.raises(AttentKitError, match="function_net:Net of attentkit-mine 0.1 is not a class"):
        registry_of(offer("net", "function_net:Net")).resolve("segmentors", "net")


EVERY_INTERFACE = INTERFACES | {"layouts": Layout, "selectors": Selector, "trackers": Tracker, "launchers": Launcher}


def typed(registry, kind):
    """The method of the registry for one kind."""
    return getattr(registry, kind.removesuffix("s"))


@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_what_is_offered_under_a_hook_derives_from_its_interface(kind):
    other = next(interface for other, interface in EVERY_INTERFACE.items() if other != kind)
    for wrong in (type("Wrong", (), {"kind": kind}), type("Wrong", (other,), {"__module__": __name__})):
        with pytest.raises(AttentKitError) as caught:
            typed(registry_of(offer(kind=kind, target=wrong)), kind)("net")
        for words in ("'net'", "attentkit-mine 0.1", "test_registry.Wrong", EVERY_INTERFACE[kind].__name__):
            assert words in str(caught.value)


def test_a_class_under_the_wrong_hook_is_a_sentence_on_the_command_line(attentkit, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import attent_kit\nclass Mine:\n    pass\n@attent_kit.hookimpl\ndef attentkit_alignments():\n    return {'mine': Mine}\n"
    )
    outcome = attentkit("--plugin", file, "show", "mine")
    assert outcome.code == 1 and quotes(outcome.err, "mine.Mine", "Alignment") and "Traceback" not in outcome.err


def test_a_contested_name_belongs_to_nobody_and_both_are_named():
    registry = registry_of(offer(), offer(target=Bare, plugin="theirs", distribution="attentkit-theirs", version="2.0"))
    with pytest.raises(PluginConflict) as caught:
        registry.resolve("segmentors", "net")
    for words in ("'net'", "segmentors", "attentkit-mine 0.1", "attentkit-theirs 2.0", "ATTENTKIT_PLUGINS=mine"):
        assert words in str(caught.value)
    assert registry.contested() == [caught.value]


def test_a_contested_name_leaves_the_other_names_alone():
    registry = registry_of(offer(), offer("own"), offer(target=Bare), offer(target=Bare, kind="translators"))
    assert registry.resolve("segmentors", "own") is Net
    assert registry.resolve("translators", "net") is Bare


def test_the_summary_is_the_first_line_of_the_docstring(module):
    module(
        "documented_net",
        'raise RuntimeError("reading is not importing")\nclass A:\n    """Of A.\n\n    More.\n    """\n',
    )
    assert offer().summary() == "A net of six layers."
    assert offer(target=Bare).summary() == ""
    assert offer(target="documented_net:A").summary() == "Of A."


def test_a_summary_that_cannot_be_read_is_not_an_error(module, tmp_path):
    module("unreadable_net", "def broken(:")
    module("lonely_net", "class A: pass")
    assert offer(target="unreadable_net:A").summary() == "(its source cannot be read)"
    assert offer(target="no_such_module_of_ours:A").summary() == "(its source cannot be read)"
    assert offer(target="lonely_net:B").summary() == "(no class B in lonely_net)"
    assert offer(kind="suites", target=str(tmp_path / "none.toml")).summary() == "(its file cannot be read)"


def test_the_summary_of_a_suite_is_its_title(tmp_path):
    (tmp_path / "mine.toml").write_text('title = "Heads"\n')
    assert offer(kind="suites", target=str(tmp_path / "mine.toml")).summary() == "Heads"


@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_every_kind_of_class_has_a_method_of_its_own_that_is_typed(kind):
    offers = {each: type("Net", (interface,), {}) for each, interface in EVERY_INTERFACE.items()}
    ask = typed(registry_of(*(offer(kind=each, target=target) for each, target in offers.items())), kind)
    assert offers.keys() == {*CLASS_KINDS} and ask("net") is offers[kind]
    with pytest.raises(UnknownComponent, match="nett"):
        ask("nett")
    assert kind.removesuffix("s").capitalize() in ask.__annotations__["return"].__args__[0]
