"""FDA: Fourier domain adaptation for semantic segmentation."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.1"


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {"fda": "attentkit_fda.fda:FDA"}
