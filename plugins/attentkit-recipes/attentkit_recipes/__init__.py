"""Recipes of 2021 and later that stand beside AttENT in a table."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.4"


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {
        "best": "attentkit_recipes.best:BothStyles",
        "cut": "attentkit_recipes.cut:CUT",
        "labels_only": "attentkit_recipes.labels_only:LabelsOnly",
        "translate_selftrain": "attentkit_recipes.translate_selftrain:TranslateSelfTraining",
        "tent": "attentkit_recipes.tent:Tent",
        "dg_tta": "attentkit_recipes.dg_tta:DGTTA",
        "sfda": "attentkit_recipes.sfda:SourceFree",
    }
