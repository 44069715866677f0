"""Typed configuration: TOML and `--set a.b=c` in, frozen pydantic models everywhere after.

    class Config(ComponentConfig):
        segmentor: Choice[Segmentor] = Choice("smp")
        '''Network that is adapted.'''

`preset = "paper"` among the options of a component takes the options of that name from its `presets` first.

A `Choice` is the name of a component and the options that this component's own `Config` accepts. In TOML it is a
string or a table: `segmentor = "smp"`, or `[segmentor]` with `name = "smp"` and `encoder = "resnet18"`; the name may
be left out where the default is meant. Names are resolved in the registry that `validate` is given.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from attent_kit.errors import AttentKitError, ConfigError, did_you_mean
from attent_kit.reading import Unreadable, text_of, toml_in

T = TypeVar("T")
M = TypeVar("M", bound="ComponentConfig")


class Resolver(Protocol):
    """What a Choice needs from a registry: the class behind a name."""

    def resolve(self, kind: str, name: str) -> type[Any]: ...


class ComponentConfig(BaseModel):
    """Base of every `Config`: frozen, no unknown option, the string under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Options by name of the preset: `preset = "paper"` takes them, and other options given override them. A dump
    holds no preset, only the resulting options."""

    small: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options that make the component as small as it can be, for `attentkit plugins check`. Components that it chooses are
    made small by their own."""

    def without_weights(self) -> "ComponentConfig":
        """The same options for a network that a checkpoint will fill: override it if building would fetch weights."""
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _complete_choices_and_name_alternatives(cls, data: Any, handler: Any) -> Any:
        if isinstance(data, Mapping):
            data = _with_preset(cls, data)
            data = {name: _with_default(cls, name, value) for name, value in data.items()}
        try:
            return handler(data)
        except ValidationError as error:
            lines = [_line(cls, e) for e in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, lines) from None


class Choice(Generic[T]):
    """A component by name, with its options: `Choice("smp", encoder="resnet18")`."""

    __slots__ = ("kind", "name", "options")

    def __init__(self, name: str, **options: Any) -> None:
        self.kind = ""
        """Which registry the name is looked up in; known once validated."""
        self.name = name
        self.options: Any = options
        """The component's own `Config` after validation, plain options before."""

    def dump(self) -> dict[str, Any]:
        """Name and every option as plain values, as TOML would hold them."""
        options = dump(self.options) if isinstance(self.options, BaseModel) else dict(self.options)
        return {"name": self.name, **options}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash(repr(self.dump()))

    def __repr__(self) -> str:
        return f"Choice({self.dump()})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        (interface,) = get_args(source)
        return core_schema.with_info_plain_validator_function(
            partial(_resolve, interface),
            serialization=core_schema.plain_serializer_function_ser_schema(Choice.dump),
        )


def _resolve(interface: Any, value: Any, info: Any) -> Choice[Any]:
    """The validated Choice for what a user wrote: a name, a table, or a default of ours."""
    kind = interface.kind
    if isinstance(value, Choice):
        if isinstance(value.options, BaseModel):
            return value
        value = value.dump()
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise PydanticCustomError("choice", f"name one of the {kind} (`attentkit list {kind}` shows them).")
    if info.context is None:
        raise TypeError(
            "options that choose components need a registry: attent_kit.config.validate(Config, {}, registry)."
        )
    try:
        component = info.context["registry"].resolve(kind, value["name"])
    except AttentKitError as error:
        raise PydanticCustomError("component", str(error)) from None
    options = {name: option for name, option in value.items() if name != "name"}
    choice: Choice[Any] = Choice(value["name"])
    choice.kind = kind
    choice.options = component.Config.model_validate(options, context=info.context)
    return choice


def _with_preset(model: type[ComponentConfig], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the preset that `data` names, with the rest of `data` laid over them."""
    if not model.presets or "preset" not in data:
        return data
    name = data["preset"]
    if name not in model.presets:
        message = (
            f"there is no preset '{name}'.{did_you_mean(name, model.presets)} There are: {', '.join(model.presets)}."
        )
        error = InitErrorDetails(type=PydanticCustomError("attentkit", message), loc=("preset",), input=name)
        raise ValidationError.from_exception_data(model.__name__, [error])
    return merge(model.presets[name], {option: value for option, value in data.items() if option != "preset"})


def _with_default(model: type[BaseModel], name: str, value: Any) -> Any:
    """Options given without a component name, or for the default component, are laid over the default's options."""
    field = model.model_fields.get(name)
    default = field.default if field is not None else None
    if not isinstance(default, Choice):
        return value
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or given.get("name", default.name) != default.name:
        return value
    return {**default.dump(), **given}


def _line(model: type[BaseModel], error: Any) -> InitErrorDetails:
    """One pydantic error in our own words; errors from a nested model already are."""
    message = str(error["msg"])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        names = list(model.model_fields)
        accepted = f" Accepted here: {', '.join(names)}." if names else " No option is accepted here."
        message = f"no such option.{did_you_mean(str(error['loc'][0]), names)}{accepted}"
    elif error["type"] == "missing":
        message = "is required and was not given."
    elif error["type"] == "value_error":
        message = str(error["ctx"]["error"])
    elif error["type"] not in _OURS:
        message = f"{message}, not {_shown(error['input'])}."
    return InitErrorDetails(type=PydanticCustomError("attentkit", message), loc=error["loc"], input=error["input"])


_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_ESCAPE = re.compile(r'\\(?:[btnfr"\\]|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})')
_FILE = re.compile(r"\\[^\\]*\.(h5|hdf5|toml|csv|nii|gz)$", re.IGNORECASE)
"""The end of the name of a file behind a backslash."""
_OURS = ("attentkit", "choice", "component")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def validate(model: type[M], data: Mapping[str, Any], registry: Resolver) -> M:
    """`data` as a `model`, or one ConfigError that names every mistake with its dotted path."""
    try:
        return model.model_validate(data, context={"registry": registry})
    except ValidationError as error:
        # A validator of the outermost model itself raises outside its `_line`.
        lines = [f"{_place(e)}{e['ctx']['error'] if e['type'] == 'value_error' else e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _place(error: Any) -> str:
    return f"{'.'.join(map(str, error['loc']))}: " if error["loc"] else ""


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file."""
    try:
        text = text_of(path).replace("\r\n", "\n")
        return {key: _turned(value) for key, value in toml_in(_QUOTED.sub(_literal, text)).items()}
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file: check the spelling of the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read as TOML: {reason}. Correct it.") from None


def _literal(match: re.Match[str]) -> str:
    """A text in quotation marks in which backslashes stand for themselves, as people on Windows write the name of a file."""
    inner = match[0][1:-1]
    if "\\" not in _ESCAPE.sub("", inner) and ("\\\\" in inner or not _FILE.search(inner)):
        return match[0]
    return '"' + inner.replace("\\", "/") + '"'


def _turned(value: Any) -> Any:
    """Names of files with slashes, which all systems read."""
    if isinstance(value, dict):
        return {key: _turned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_turned(inner) for inner in value]
    return value.replace("\\", "/") if isinstance(value, str) and _FILE.search(value) else value


def dump(model: BaseModel) -> dict[str, Any]:
    """Every option as a plain TOML value; options that are None are left out."""
    return model.model_dump(mode="json", exclude_none=True)


def to_toml(data: Mapping[str, Any]) -> str:
    """TOML text of plain values."""
    return tomli_w.dumps(data)


def parse_set(words: Sequence[str]) -> list[tuple[list[str], Any]]:
    """`a.b=c` -> (["a", "b"], value); the value is read as TOML and, failing that, is the text itself."""
    pairs = []
    for word in words:
        path, equals, text = word.partition("=")
        parts = [part.strip() for part in path.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {word}: write it as option=value, for example --set segmentor.encoder=resnet18.")
        try:
            value = toml_in(f"value = {text}")["value"]
        except Unreadable:
            value = text.strip()
        pairs.append((parts, value))
    return pairs


def as_words(given: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Words of `--set`, as they are or from values by option: {"segmentor.depth": 3} -> ("segmentor.depth=3",)."""
    if isinstance(given, str):
        raise ConfigError(f"--set {given}: give a list of such words, or values by option.")
    if not isinstance(given, Mapping):
        return tuple(given)
    words: list[str] = []
    for option, value in given.items():
        if isinstance(value, Mapping):
            words += as_words({f"{option}.{name}": inner for name, inner in value.items()})
        else:
            words.append(f"{option}={json.dumps(value, default=str)}")
    return tuple(words)


def put(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set `data[path[0]][path[1]]... = value`; a component given by bare name becomes a table."""
    for part in path[:-1]:
        inner = data.get(part, {})
        inner = {"name": inner} if isinstance(inner, str) else dict(inner) if isinstance(inner, Mapping) else {}
        data[part] = inner
        data = inner
    last = path[-1]
    if isinstance(data.get(last), dict) and isinstance(value, str):
        value = {**data[last], "name": value} if data[last].get("name", value) == value else {"name": value}
    data[last] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, tables merged; naming another component drops the options of the one it replaces."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, str) and isinstance(value, Mapping):
            old = {"name": old}
        if isinstance(value, str) and isinstance(old, Mapping):
            value = {"name": value}
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            replaced = "name" in value and "name" in old and value["name"] != old["name"]
            merged[name] = dict(value) if replaced else merge(old, value)
        else:
            merged[name] = value
    return merged
