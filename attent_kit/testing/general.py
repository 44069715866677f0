"""Checks for components of every kind: documentation, options, and what importing the plugin costs."""

import inspect
import json
import os
import pickle
import subprocess
import sys
import tomllib

from attent_kit.build import configure
from attent_kit.config import dump, to_toml
from attent_kit.data.sets.layout import Layout
from attent_kit.interfaces import INTERFACES
from attent_kit.plugins import GROUP
from attent_kit.registry import KINDS
from attent_kit.selectors import Selector
from attent_kit.testing.subject import Skipped, Subject

IMPORT_SECONDS = 0.3
INTERFACE_OF = {**INTERFACES, "layouts": Layout, "selectors": Selector}

_REGISTER = """
import json, sys, time
from importlib.metadata import EntryPoint
from attent_kit.plugins import load_from
before = "torch" in sys.modules
began = time.perf_counter()
loaded = load_from([EntryPoint("examined", sys.argv[1], sys.argv[2])])
seconds = time.perf_counter() - began
errors = [quarantined.error for quarantined in loaded.quarantined]
print(json.dumps({"seconds": seconds, "torch": "torch" in sys.modules and not before, "errors": errors}))
"""


def documented(subject: Subject) -> None:
    """`attentkit list` and `show` print what a component says about itself. Write a docstring whose first line is its summary,
    and below each option of its Config a string with its meaning and unit."""
    component, interface = subject.component, INTERFACE_OF[subject.kind]
    assert issubclass(component, interface), f"{component.__name__} is not a {interface.__name__}: subclass it."
    assert (component.__dict__.get("__doc__") or "").strip(), (
        f"{component.__name__} has no docstring: its first line is its summary."
    )
    config = getattr(component, "Config", None)
    for name, field in config.model_fields.items() if config is not None else ():
        assert field.description, (
            f"{component.__name__}.Config.{name}: write its meaning and unit in a string below it."
        )


def options_written(subject: Subject) -> None:
    """A run keeps its options as TOML and is rebuilt from them. Use numbers, text, lists and tables, or give a validator
    that reads what is written."""
    name = subject.component.__name__
    config = subject.config
    again = configure(subject.component, tomllib.loads(to_toml(dump(config))), subject.registry)
    assert again == config, f"{name}.Config does not survive being written to TOML and read again."


def presets_valid(subject: Subject) -> None:
    """`--set preset=NAME` must set what `attentkit show` lists, and `small` must make the component small. Name only options
    that the Config has, with values that it accepts, in `presets` and in `small`."""
    config = subject.component.Config
    for name in config.presets:
        try:
            configure(subject.component, {"preset": name}, subject.registry)
        except Exception as error:
            raise AssertionError(f"preset '{name}': {error}") from error
    configure(subject.component, config.small, subject.registry)
    configure(subject.component, {}, subject.registry)


def pickles(subject: Subject) -> None:
    """The class and its options are sent to other processes. Define the class at the top of an importable module, and keep
    options that are plain values."""
    component = subject.component
    try:
        same = pickle.loads(pickle.dumps(component)) is component
        config = subject.config if subject.kind in KINDS else None
        same_options = pickle.loads(pickle.dumps(config)) == config
    except Exception as error:
        raise AssertionError(f"{component.__name__} cannot be pickled: {error}.") from error
    assert same, f"{component.__name__} cannot be found as {component.__module__}.{component.__qualname__}."
    assert same_options, f"{component.__name__}.Config does not survive pickling."


def _registered(subject: Subject) -> dict[str, object]:
    """What happens when the plugin's own module is loaded in a fresh interpreter."""
    if not subject.module:
        raise Skipped("it is not installed; a single file is imported as a whole")
    command = [sys.executable, "-c", _REGISTER, subject.module, GROUP]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert answer.returncode == 0, f"loading {subject.module} fails: {answer.stderr.strip().splitlines()[-1:]}"
    said: dict[str, object] = json.loads(answer.stdout)
    assert not said["errors"], f"loading {subject.module} fails: {said['errors']}"
    return said


def registers_without_torch(subject: Subject) -> None:
    """Every `attentkit --help` loads the module of every installed plugin. Import no torch there: let the hooks return
    "module:Class" as text, and keep the classes in another module."""
    assert not _registered(subject)["torch"], f"importing {subject.module} imports torch."


def registers_quickly(subject: Subject) -> None:
    """Every command waits for the module of every installed plugin. Stay below 0.3 s: import libraries in the module of
    the class, which is loaded when it is used."""
    # The best of three: a busy machine is not the plugin's fault.
    seconds = min(float(str(_registered(subject)["seconds"])) for _ in range(3))
    assert seconds <= IMPORT_SECONDS, f"importing {subject.module} takes {seconds:.2f} s, more than {IMPORT_SECONDS} s."


def source_line(subject: Subject, error: BaseException) -> str:
    """ " (FILE:LINE)" of the last place in the component's own file that the error came through, or nothing."""
    try:
        own = inspect.getsourcefile(subject.component)
    except TypeError:
        return ""
    trace, place = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == own:
            place = f" ({os.path.basename(own)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
