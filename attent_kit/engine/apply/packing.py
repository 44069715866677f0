"""A run made into one file for others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attent_kit import __version__
from attent_kit.config import to_toml
from attent_kit.engine.apply.card import run_card, without_places
from attent_kit.engine.apply.pack import CARD, CONFIG, DOMAIN, ENVIRONMENT, WEIGHTS, write_pack
from attent_kit.engine.apply.trained import LoadedRun, load_run, open_run
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.assemble import network_states
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.engine.run.provenance import recorded
from attent_kit.errors import ConfigError
from attent_kit.files import read_json
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST


@dataclass(frozen=True)
class PackOptions:
    """What goes into a pack."""

    licence: str | None = None
    """What others may do with it, in words or as an SPDX identifier."""
    select: str = LAST
    """Snapshot of the run."""
    overwrite: bool = False
    """Whether an existing file is replaced."""


def pack_run(run: Path, out: Path, registry: Registry, options: PackOptions = PackOptions()) -> list[str]:
    """One zip of what `predict` needs of a finished run, without a place of this machine; names of the networks in it.

    ConfigError if the run is not finished or if OUT cannot be written to; otherwise as `load_run`.
    """
    trained = open_run(run, registry)
    if trained.pack is not None:
        raise ConfigError(f"{run} is a pack already: copy it.")
    if out.suffix != ".zip" or out.is_dir():
        raise ConfigError(f"{out}: write a name that ends in .zip.")
    if out.exists() and not options.overwrite:
        raise ConfigError(f"{out} exists already: name another file, or type --overwrite.")
    loaded = load_run(trained, registry, "cpu", options.select)
    networks = networks_of_predict(loaded.alignment, trained.domain.size, loaded.device)
    config = without_places(trained.config)
    card = run_card(trained, loaded) | {"licence": options.licence}
    files = {
        CONFIG: to_toml(config).encode(),
        DOMAIN: trained.files.domain.read_bytes(),
        ENVIRONMENT: _as_json(_environment(trained.files)),
        CARD: _as_json(card),
        WEIGHTS: _weights(loaded, networks, config),
    }
    facts = {
        "licence": options.licence,
        "attent_kit": __version__,
        "method": trained.component.name,
        "networks": networks,
        "selection": loaded.selection,
    }
    write_pack(out, files, facts)
    return networks


def _weights(loaded: LoadedRun, networks: list[str], config: dict[str, Any]) -> bytes:
    """The networks that `predict` calls and the buffers of the method itself, each by a name like "S.encoder.conv1.weight"."""
    states = network_states(loaded.alignment)
    weights = {f"{name}.{key}": value for name in (*networks, "") for key, value in states[name].items()}
    facts = {
        "networks": networks,
        "steps": loaded.steps,
        "selection": loaded.selection,
        "config": checkpoint.fingerprint(config),
    }
    return checkpoint.packed_weights(weights, facts)


def _environment(run: RunFolder) -> dict[str, Any]:
    """env.json of the run without what was typed and where it lies; for a run without env.json, its components."""
    said = read_json(run.environment)
    components = [dict(record) for record in recorded(run, said)]
    kept = {name: value for name, value in (said or {}).items() if name != "command"}
    return without_places({**kept, "components": components})


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
