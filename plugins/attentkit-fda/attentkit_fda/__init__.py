"""FDA: Fourier domain adaptation for semantic segmentation."""

from attent_kit import hookimpl


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {"fda": "attentkit_fda.fda:FDA"}
