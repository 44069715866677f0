"""Self-training: a mean teacher labels target slices; its student learns from mixed and from masked ones."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.3"


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {"selftrain": "attentkit_selftrain.selftrain:SelfTraining"}
