"""TOML and --set in, one validated model out, or every mistake at once."""

import tomllib

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from attent_kit.config import (
    Choice,
    ComponentConfig,
    dump,
    merge,
    parse_set,
    put,
    read_toml,
    to_toml,
    validate,
)
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Segmentor
from attent_kit.registry import Component, Registry
from support.messages import quotes


class Network(Segmentor):
    Config = ComponentConfig


class Unet(Network):
    class Config(ComponentConfig):
        encoder: str = "resnet18"
        depth: int = Field(5, ge=1)

        @field_validator("encoder")
        @classmethod
        def _known(cls, encoder):
            if encoder == "vgg":
                raise ValueError("'vgg' is not among {resnet18, resnet50}: take one of them.")
            return encoder


class Nest(Network):
    """A network that is made of another one."""

    class Config(ComponentConfig):
        inner: Choice[Network] = Choice("unet", encoder="resnet50")
        copies: int = 2


class Vit(Network):
    class Config(ComponentConfig):
        patch: int = 16


class Stranger:
    """Offered as a segmentor without being one."""


class Method(ComponentConfig):
    network: Choice[Network] = Choice("unet", encoder="resnet50")
    others: list[Choice[Network]] = []
    weights: tuple[float, ...] = (1.0, 0.1)
    rate: float = Field(0.1, gt=0)
    mode: str = "plain"
    note: str | None = None

    @model_validator(mode="after")
    def _one_weight_at_least(self):
        if not self.weights:
            raise ValueError("weights is empty: give one.")
        return self


class Run(ComponentConfig):
    method: Method
    seed: int


@pytest.fixture(scope="module")
def registry():
    registry = Registry()
    for name, target in {"unet": Unet, "vit": Vit, "nest": Nest, "stranger": Stranger}.items():
        registry.add(Component("segmentors", name, target, "test", "test", "1"))
    return registry


@pytest.fixture
def method(registry):
    return lambda **options: validate(Method, options, registry)


@pytest.fixture
def mistakes(registry):
    """The lines of the ConfigError that a Run with these options ends in."""

    def lines(**options):
        with pytest.raises(ConfigError) as caught:
            validate(Run, {"seed": 0, **options}, registry)
        return str(caught.value).split("\n")

    return lines


# Choices


def test_a_component_is_named_by_a_word_or_a_table(method):
    assert method(network="vit").network == method(network={"name": "vit"}).network
    assert method(network={"name": "vit", "patch": 8}).network.options == Vit.Config(patch=8)


def test_a_validated_choice_knows_its_kind_and_its_own_config(method):
    choice = method().network
    assert (choice.kind, choice.name) == ("segmentors", "unet")
    assert choice.options == Unet.Config(encoder="resnet50", depth=5)


@pytest.mark.parametrize("given", [{"depth": 3}, {"name": "unet", "depth": 3}])
def test_given_options_are_laid_over_those_of_the_default(method, given):
    assert method(network=given).network.dump() == {"name": "unet", "encoder": "resnet50", "depth": 3}


def test_the_default_by_name_is_the_default_with_its_options(method):
    assert method(network="unet") == method()
    assert method().network.options.encoder == "resnet50"


def test_naming_another_component_drops_the_options_of_the_default(method):
    assert method(network="vit").network.dump() == {"name": "vit", "patch": 16}


def test_a_component_may_be_made_of_components(method):
    given = {"name": "nest", "inner": {"depth": 2}}
    inner = {"name": "unet", "encoder": "resnet50", "depth": 2}
    assert method(network=given).network.dump() == {"name": "nest", "inner": inner, "copies": 2}


def test_a_default_choice_is_not_changed_by_validating_it(method):
    method(network={"depth": 1})
    assert method().network.options.depth == 5


def test_choices_are_equal_by_name_and_options():
    assert Choice("unet", depth=1) == Choice("unet", depth=1)
    assert hash(Choice("unet", depth=1)) == hash(Choice("unet", depth=1))
    assert Choice("unet", depth=1) != Choice("unet", depth=2) != Choice("vit", depth=2)


def test_options_that_choose_components_need_a_registry():
    with pytest.raises(TypeError, match="registry"):
        Method()


# Mistakes


def test_a_typo_is_answered_with_its_path_the_nearest_option_and_all_options(mistakes):
    (line,) = mistakes(method={"network": {"encodr": "resnet18"}})
    assert quotes(line, "method.network.encodr: ", "'encoder'?", "encoder, depth")


def test_an_unknown_component_is_answered_with_the_nearest(mistakes):
    (line,) = mistakes(method={"network": "unett"})
    assert quotes(line, "method.network: ", "'unett'", "'unet'?", "`attentkit list segmentors`", "4")


def test_all_mistakes_are_reported_at_once(mistakes):
    given = {
        "network": {"name": "nest", "inner": {"dept": 1, "encoder": "vgg"}, "copies": "many"},
        "others": ["vit", {"name": "vit", "patch": "x"}],
        "rate": 0,
    }
    paths = [line.partition(":")[0] for line in mistakes(method=given, sed=1)]
    assert sorted(paths) == [
        "method.network.copies",
        "method.network.inner.dept",
        "method.network.inner.encoder",
        "method.others.1.patch",
        "method.rate",
        "sed",
    ]


def test_an_option_that_is_needed_and_missing_is_named(registry):
    with pytest.raises(ConfigError, match=r"^seed: .*required"):
        validate(Run, {"method": {}}, registry)


def test_a_value_out_of_range_is_shown(mistakes):
    (line,) = mistakes(method={"rate": -2.0})
    assert quotes(line, "method.rate: ", "greater than 0", "-2.0")


def test_the_sentence_of_a_field_validator_is_reported_as_it_is(mistakes):
    assert mistakes(method={"network": {"encoder": "vgg"}}) == [
        "method.network.encoder: 'vgg' is not among {resnet18, resnet50}: take one of them."
    ]


def test_the_sentence_of_a_model_validator_is_reported_as_it_is(mistakes):
    assert mistakes(method={"weights": []}) == ["method: weights is empty: give one."]


@pytest.mark.parametrize("given", [3, {"name": 3}, {}, ["unet"]])
def test_what_names_no_component_is_refused(mistakes, given):
    (line,) = mistakes(method={"others": [given]})
    assert line.startswith("method.others.0: ") and "`attentkit list segmentors`" in line


def test_a_component_that_does_not_subclass_its_interface_is_refused(mistakes):
    (line,) = mistakes(method={"network": "stranger"})
    assert line.startswith("method.network: segmentor 'stranger' of test 1") and "Segmentor" in line


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_a_number_must_be_finite(mistakes, rate):
    (line,) = mistakes(method={"rate": float(rate)})
    assert line.startswith("method.rate: ")


# A validated model


def test_a_resolved_configuration_survives_toml(registry):
    options = {
        "network": {"name": "nest", "inner": {"encoder": 'a "quoted" \\ name'}},
        "others": ["vit", {"name": "unet", "depth": 1}],
        "weights": [0.1, 1e-9, 3.0],
    }
    run = validate(Run, {"method": options, "seed": 7}, registry)
    again = validate(Run, tomllib.loads(to_toml(dump(run))), registry)
    assert again == run
    assert again.method.network.options.inner.options.encoder == 'a "quoted" \\ name'


def test_the_dump_holds_every_option_but_those_that_are_none(method):
    assert dump(method(note=None)) == {
        "network": {"name": "unet", "encoder": "resnet50", "depth": 5},
        "others": [],
        "weights": [1.0, 0.1],
        "rate": 0.1,
        "mode": "plain",
    }
    assert dump(method(note="x"))["note"] == "x"


def test_a_validated_configuration_is_frozen(method):
    config = method()
    with pytest.raises(ValidationError):
        config.rate = 1.0
    with pytest.raises(ValidationError):
        config.network.options.depth = 1


@pytest.mark.parametrize("content", [None, b"a = ", b"a = 1\na = 2", b"\xff"])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml"):
        read_toml(path)


# --set


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("seed=3", ["seed"], 3),
        ("network.depth=3", ["network", "depth"], 3),
        ("rate=1e-4", ["rate"], 0.0001),
        ("flag=true", ["flag"], True),
        ("mode=summed", ["mode"], "summed"),
        ('mode="3"', ["mode"], "3"),
        ("weights=[0.5, 0.25]", ["weights"], [0.5, 0.25]),
        ("others=['vit', 'unet']", ["others"], ["vit", "unet"]),
        ("network={name='vit', patch=8}", ["network"], {"name": "vit", "patch": 8}),
        ("source=data/ct.h5", ["source"], "data/ct.h5"),
        ("mode=a=b", ["mode"], "a=b"),
        ("mode=", ["mode"], ""),
        (" network . depth = 3", ["network", "depth"], 3),
        ("mode = summed", ["mode"], "summed"),
    ],
)
def test_set_reads_toml_values_and_bare_words(word, path, value):
    (parsed,) = parse_set([word])
    assert parsed == (path, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("word", ["seed", "=3", "network.=3", ".depth=3", "a..b=3", " =3", ""])
def test_set_without_an_option_says_how_to_write_it(word):
    with pytest.raises(ConfigError, match="option=value"):
        parse_set([word])


@pytest.mark.parametrize(
    ("data", "path", "value", "result"),
    [
        ({}, "a.b.c", 1, {"a": {"b": {"c": 1}}}),
        ({"a": {"b": 1}}, "a.c", 2, {"a": {"b": 1, "c": 2}}),
        ({"a": "unet"}, "a.depth", 2, {"a": {"name": "unet", "depth": 2}}),
        ({"a": {"name": "unet", "depth": 2}}, "a", "vit", {"a": {"name": "vit"}}),
        ({"a": {"name": "unet", "depth": 2}}, "a", "unet", {"a": {"name": "unet", "depth": 2}}),
        ({"a": {"depth": 2}}, "a", "unet", {"a": {"name": "unet", "depth": 2}}),
        ({"a": {"b": 1}}, "a", [1], {"a": [1]}),
    ],
)
def test_put_sets_one_option(data, path, value, result):
    put(data, path.split("."), value)
    assert data == result


def test_put_leaves_the_tables_it_goes_through_as_they_were():
    inner = {"b": 1}
    data = {"a": inner}
    put(data, ["a", "b"], 2)
    assert (data, inner) == ({"a": {"b": 2}}, {"b": 1})


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}, {"a": {"b": {"c": 1, "d": 2}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": "unet"}, {"a": {"depth": 2}}, {"a": {"name": "unet", "depth": 2}}),
        ({"a": {"name": "unet", "depth": 2}}, {"a": "unet"}, {"a": {"name": "unet", "depth": 2}}),
        ({"a": {"name": "unet", "depth": 2}}, {"a": "vit"}, {"a": {"name": "vit"}}),
        ({"a": {"name": "unet", "depth": 2}}, {"a": {"name": "vit", "patch": 8}}, {"a": {"name": "vit", "patch": 8}}),
        ({"a": "unet"}, {"a": "vit"}, {"a": "vit"}),
    ],
)
def test_merge_lays_tables_over_tables(base, over, result):
    before = to_toml(base)
    assert merge(base, over) == result
    assert to_toml(base) == before
