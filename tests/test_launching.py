"""Which launcher is meant, and what it and its jobs are told."""

import pytest

from attent_kit.config import dump
from attent_kit.engine.jobs.settings import launching
from attent_kit.errors import ConfigError
from attent_kit.plugins import load

REGISTRY = load().registry


@pytest.mark.parametrize(
    ("table", "name", "words", "sentence"),
    [
        ({}, "slrm", [], "no launcher is called 'slrm'"),
        ({}, "local", ["minuts=3"], "Did you mean 'minutes'?"),
        ({}, "local", ["minutes=soon"], "minutes: "),
        ({}, "local", ["minutes"], "--launch minutes: write it as option=value"),
        ({"name": "local", "partition": "gpu"}, None, [], "'local' has no such option"),
    ],
)
def test_launchers_and_options_that_are_not_there_are_one_sentence(table, name, words, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?")):
        launching(table, name, words, REGISTRY)


def test_options_of_the_command_line_lie_over_those_of_the_suite_and_another_launcher_takes_what_all_take():
    table = {"name": "slurm", "partition": "gpu", "minutes": 5, "gpus": 2}
    found = launching(table, "local", ["minutes=7"], REGISTRY)
    assert found.name == "local" and (found.jobs.minutes, found.jobs.gpus) == (7, 2)
    assert launching({}, None, [], REGISTRY) is None
    assert dump(launching({"retries": 1}, None, [], REGISTRY).jobs)["retries"] == 1
