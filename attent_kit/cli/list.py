"""`attentkit list`."""

import click

from attent_kit.cli.output import print_json, print_table
from attent_kit.door import components
from attent_kit.errors import AttentKitError
from attent_kit.plugins import load
from attent_kit.registry import Component


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List installed components.

    KIND is one of translators, segmentors, discriminators, alignments, suites, layouts, selectors, trackers, launchers;
    without it, all are listed. `list alignments` and `list segmentors` say, too, which take slices (2-D), slices with
    their neighbours (2.5-D) and volumes (3-D), and what a method learns from.
    """
    found = components(kind)
    facts = [_facts(c) if kind in ("alignments", "segmentors") else {} for c in found]
    if as_json:
        fields = ("kind", "name", "plugin", "distribution", "version")
        print_json(
            [
                {**{f: getattr(c, f) for f in fields}, "summary": c.summary(), **more}
                for c, more in zip(found, facts, strict=True)
            ]
        )
        return
    columns = ["kind", "name", "what it is", *(name.replace("_", " ") for name in next(iter(facts), {})), "from"]
    rows = [
        (c.kind[:-1], c.name, c.summary(), *(", ".join(words) for words in more.values()), c.origin)
        for c, more in zip(found, facts, strict=True)
    ]
    print_table("", columns, rows)
    loaded = load()
    for conflict in loaded.registry.contested():
        click.echo(f"PluginConflict: {conflict}", err=True)
    if loaded.quarantined:
        click.echo(f"{len(loaded.quarantined)} plugin(s) could not be loaded: `attentkit plugins` says why.", err=True)


def _facts(component: Component) -> dict[str, list[str]]:
    """What it takes and, of a method, what it learns from; nothing, and the reason to stderr, where it cannot be imported."""
    # What looks into a component needs more than a list of names.
    from attent_kit.describe import learns_from, takes_of

    takes: list[str] = []
    learns: list[str] = []
    try:
        takes, learns = takes_of(component), learns_from(component)
    except AttentKitError as error:
        click.echo(str(error), err=True)
    return {"takes": takes, "learns_from": learns} if component.kind == "alignments" else {"takes": takes}
