"""`attentkit plugins`, and `attentkit plugins new` and `check`."""

from dataclasses import asdict
from pathlib import Path

import click

from attent_kit.cli.plugin_files import add_files, plugin_option
from attent_kit.registry import Component


@click.group("plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List installed plugins, create one, or check one."""
    if context.invoked_subcommand is not None:
        return
    from attent_kit.cli.output import print_json, print_table
    from attent_kit.plugins import load

    loaded = load()
    offers = {p.name: [c for c in loaded.registry if c.plugin == p.name] for p in loaded.plugins}
    if as_json:
        plugins = [{**asdict(p), "offers": [f"{c.kind}:{c.name}" for c in offers[p.name]]} for p in loaded.plugins]
        print_json({"plugins": plugins, "quarantined": [asdict(q) for q in loaded.quarantined]})
        return
    rows = [(p.name, f"{p.distribution} {p.version}", _by_kind(offers[p.name])) for p in loaded.plugins]
    print_table("", ("plugin", "from", "offers"), rows)
    if loaded.quarantined:
        broken = [(q.name, f"{q.distribution} {q.version}", q.error) for q in loaded.quarantined]
        print_table("Quarantined", ("plugin", "from", "why"), broken)
    for conflict in loaded.registry.contested():
        click.echo(f"PluginConflict: {conflict}", err=True)


def _by_kind(components: list[Component]) -> str:
    kinds = dict.fromkeys(component.kind for component in components)
    return "\n".join(f"{kind}: {', '.join(c.name for c in components if c.kind == kind)}" for kind in kinds)


@command.command("new")
@click.argument("name")
@click.option("--kind", "-k", default="alignment", show_default=True, help="Kind of its first component.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of the project.  [attentkit-NAME]")
def new(name: str, kind: str, out: Path | None) -> None:
    """Create the plugin NAME: an installable project with one working component and its tests.

    The kinds are alignment, segmentor, translator, discriminator, layout and selector.
    """
    from attent_kit.plugins import load
    from attent_kit.scaffold import KINDS, PREFIX, new_plugin

    taken = [c.name for c in load().registry.of(KINDS[kind].kinds)] if kind in KINDS else []
    folder = out or Path(PREFIX + name)
    steps = new_plugin(name, kind, folder, taken)
    click.echo(f"{folder} holds the plugin '{name}'. Next:")
    for step in steps:
        click.echo(f"  {step}")


@command.command("check")
@click.argument("what", required=False)
@click.option(
    "--checks", "-k", "words", multiple=True, metavar="WORD", help="Only checks with this word in their name."
)
@click.option(
    "--set", "options", multiple=True, metavar="OPTION=VALUE", help="Overrides the component's small options."
)
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="A data set, for a layout.")
@click.option("--device", "-d", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps.")
@plugin_option
@click.option("--list", "only_list", is_flag=True, help="List the checks and what each means, without running them.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
@click.pass_context
def check(
    context: click.Context, what: str | None, words: tuple[str, ...], options: tuple[str, ...], data: Path | None,
    device: str, only_list: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check a plugin, a component, a FILE.py or a project's folder against what the engine relies on.

    WHAT is one of these; without it, every plugin except attent-kit's own is checked. Components are made small and see
    random images: a minute or two each on a CPU. The exit code is 1 if a check fails.
    """
    from attent_kit.cli.output import bars, print_json, print_table
    from attent_kit.testing.targets import examine, target
    from attent_kit.testing.verdicts import CHECKS

    if only_list:
        known = [
            (c.name, ", ".join(c.kinds), c.meaning) for c in CHECKS if not words or any(w in c.name for w in words)
        ]
        if as_json:
            print_json([{"check": name, "kinds": kinds, "meaning": meaning} for name, kinds, meaning in known])
        else:
            print_table("", ("check", "of", "a failure means"), known)
        return
    if what is not None and what.endswith(".py"):
        add_files(context, Path(what))
    found = target(what)
    subjects = found.subjects(options, device, data)
    with bars(("checks", 0)) as (bar,):
        verdicts = examine(found, subjects, words, bar.count("checks"))
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    else:
        rows = [
            (
                v.component,
                v.check,
                v.outcome,
                f"{v.seconds:.1f}",
                f"{v.found} {v.meaning}" if v.outcome == "fail" else v.found,
            )
            for v in verdicts
        ]
        print_table("", ("component", "check", "", "s", ""), rows)
        count = {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in ("pass", "fail", "skip")}
        click.echo(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped.")
    if any(verdict.outcome == "fail" for verdict in verdicts):
        context.exit(1)
