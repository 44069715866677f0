"""Feature alignment without an adversary: MMD or CORAL on the segmentor's deepest features."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.1"


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {"mmd": "attentkit_mmd.mmd:MMD"}
