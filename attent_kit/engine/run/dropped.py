"""What a finished run may do without: its snapshots once one is chosen, and all that only training needs.

    all          nothing is dropped
    training     without snapshots/: it still goes on for more steps; no other snapshot can be chosen any more
    prediction   without checkpoint.ckpt, too: it predicts, and is scored, packed and exported, with what it has exported

selection.csv and grades.csv stay, so that tables and reports say what they said. dropped.json says what went, and by which digest
the weights were known from which other runs may have started.
"""

import json
import shutil
from pathlib import Path
from typing import Literal

from attent_kit.engine.run.exported import is_complete
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.warm_start import digest_of
from attent_kit.errors import RunError
from attent_kit.files import write_text

Keep = Literal["all", "training", "prediction"]


def droppable(run: RunFolder, keep: Keep) -> list[Path]:
    """What of a run goes if so much is kept: nothing of one that is not finished, or whose exported weights are damaged or those
    of an earlier attent-kit."""
    going = {"all": [], "training": [run.snapshots], "prediction": [run.checkpoint, run.snapshots]}[keep]
    there = [path for path in going if path.exists()]
    if not there or not run.has_scores:
        return []
    try:
        enough = run.exported() and all(is_complete(answers.segmentor) for answers in run.exported())
    except RunError:
        enough = False
    return there if enough else []


def drop(run: RunFolder, keep: Keep) -> list[Path]:
    """Remove it, and say so in dropped.json first; what is removed. The caller holds the run."""
    going = droppable(run, keep)
    if not going:
        return []
    facts = {"keep": keep, **({"weights": digest_of(run)} if keep == "prediction" else {})}
    write_text(run.dropped, json.dumps(facts, indent=2) + "\n")
    for path in going:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return going
