"""`attentkit list`."""

import click

from attent_kit.cli.output import print_json, print_table
from attent_kit.door import components
from attent_kit.plugins import load


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List installed components.

    KIND is one of translators, segmentors, discriminators, alignments, suites, layouts, selectors, trackers, launchers;
    without it, all are listed.
    """
    found = components(kind)
    if as_json:
        fields = ("kind", "name", "plugin", "distribution", "version")
        print_json([{**{f: getattr(c, f) for f in fields}, "summary": c.summary()} for c in found])
        return
    rows = [(c.kind[:-1], c.name, c.summary(), c.origin) for c in found]
    print_table("", ("kind", "name", "what it is", "from"), rows)
    loaded = load()
    for conflict in loaded.registry.contested():
        click.echo(f"PluginConflict: {conflict}", err=True)
    if loaded.quarantined:
        click.echo(f"{len(loaded.quarantined)} plugin(s) could not be loaded: `attentkit plugins` says why.", err=True)
