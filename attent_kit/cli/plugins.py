"""`attentkit plugins`."""

from dataclasses import asdict

import click

from attent_kit.cli.output import print_json, print_table
from attent_kit.plugins import load


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show the plugins that are installed, also those that could not be loaded."""
    loaded = load()
    offers = {p.name: [c for c in loaded.registry if c.plugin == p.name] for p in loaded.plugins}
    if as_json:
        plugins = [{**asdict(p), "offers": [f"{c.kind}:{c.name}" for c in offers[p.name]]} for p in loaded.plugins]
        print_json({"plugins": plugins, "quarantined": [asdict(q) for q in loaded.quarantined]})
        return
    rows = [
        (p.name, f"{p.distribution} {p.version}", ", ".join(c.name for c in offers[p.name])) for p in loaded.plugins
    ]
    print_table("", ("plugin", "from", "offers"), rows)
    if loaded.quarantined:
        broken = [(q.name, f"{q.distribution} {q.version}", q.error) for q in loaded.quarantined]
        print_table("Quarantined", ("plugin", "from", "why"), broken)
    for conflict in loaded.registry.contested():
        click.echo(f"PluginConflict: {conflict}", err=True)
