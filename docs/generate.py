"""The pages that are made from the code: `python docs/generate.py --write`; without --write it says whether they are up to date.

docs/reference/cli.md    what `attentkit COMMAND --help` prints
docs/methods.md          what every method of this repository takes; of each built-in one: its paper, what it aligns, its terms
                         and presets, its scores on the phantom
"""

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from attent_kit.registry import Component

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks")]
WIDTH = 100


def cli_page() -> str:
    """Every command's help, as a terminal of 100 columns prints it."""
    from attent_kit.cli import COMMANDS, group

    root = click.Context(
        group, info_name="attentkit", max_content_width=WIDTH, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    parts = [
        "# Command line",
        "Made from the code by `python docs/generate.py --write`.",
        _fenced(group.get_help(root)),
    ]
    for name in COMMANDS:
        command = group.get_command(root, name)
        assert command is not None
        parts += [f"## attentkit {name}", _help(command, name, root)]
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=root)
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                assert found is not None
                parts += [f"### attentkit {name} {inner}", _help(found, inner, context)]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH)
    return _fenced(command.get_help(context))


def _fenced(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def of_this_repository() -> "list[Component]":
    """The built-in methods and those of the distributions below plugins/, installed or not."""
    from attent_kit.plugins import GROUP, load, load_from

    points = []
    for project in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        sys.path.append(str(project.parent))
        entries = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
        points += [EntryPoint(name, module, GROUP) for name, module in entries.items()]
    built_in = [c for c in load().registry.of("alignments") if c.plugin == "builtin"]
    return [*built_in, *load_from(points).registry.of("alignments")]


def what_they_take() -> str:
    """A table of all methods: what they take, what they learn from, and whether they adapt at test time."""
    from attent_kit.describe import TAKES, learns_from, takes_of

    lines = [f"| method | {' | '.join(TAKES)} | learns from |", f"|---|{':-:|' * len(TAKES)}---|"]
    for component in of_this_repository():
        takes = takes_of(component)
        file = ROOT / "plugins" / (component.load().__module__.replace(".", "/") + ".py")
        if not file.exists():
            (file,) = (ROOT / "plugins").glob(f"*/{file.relative_to(ROOT / 'plugins')}")
        link = f"[`{component.name}`](../{file.relative_to(ROOT)})"
        marks = " | ".join("yes" if name in takes else "" for name in TAKES)
        lines.append(f"| {link} | {marks} | {'; '.join(learns_from(component))} |")
    return "\n".join(lines)


def methods_page() -> str:
    """What each method takes, and a section for each built-in one, with its scores on the small phantom."""
    import methods

    from attent_kit.plugins import load

    found = methods.averages(methods.RESULTS)
    labels = methods.labels_by_alignment()
    parts = [
        "# Methods",
        "Dice in percent on the small phantom, average of four organs, three seeds "
        "([how it was made](results/phantom_small.md)). Made from the code by `python docs/generate.py --write`.",
        "## What each takes",
        "2-D: slices; 2.5-D: slices with their neighbours, `--channels 3`; 3-D: patches of volumes, with a segmentor of volumes "
        "([how](howto/train.md#volumes-3-d)), which `attentkit list segmentors` names. What learns from a run starts with "
        "`--from`, or with `start` in a suite. Methods of all plugins of this repository; those that you have installed, with "
        "your own: `attentkit list alignments`.",
        what_they_take(),
    ]
    for component in load().registry.of("alignments"):
        if component.plugin != "builtin":
            continue
        method = component.load()
        lines = ["| row | MR to CT | CT to MR |", "|---|---:|---:|"]
        for label in labels[component.name]:
            scores = (f"{found[label, direction]:.1f}" for direction in methods.DIRECTIONS)
            lines.append(f"| {label} | {' | '.join(scores)} |")
        facts = {
            "Paper": method.paper or "none: it marks an end of the scale",
            "Aligns": method.aligns,
            "Backbones": method.backbones,
            "Terms for `--ablate`": ", ".join(method.terms),
            "Presets": ", ".join(f"`{name}`" for name in method.Config.presets),
        }
        parts += [
            f"## {component.name}",
            component.summary(),
            "\n".join(f"- {name}: {words}" for name, words in facts.items() if words),
            "\n".join(lines),
            f"[The method in one file](../plugins/{method.__module__.replace('.', '/')}.py)",
        ]
    return "\n\n".join(parts) + "\n"


PAGES = {"reference/cli.md": cli_page, "methods.md": methods_page}


def main() -> int:
    """Write the pages, or name those that are out of date."""
    stale = []
    for name, page in PAGES.items():
        path, text = ROOT / "docs" / name, page()
        if "--write" in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"out of date: {', '.join(stale)}. Type `python docs/generate.py --write`.")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
