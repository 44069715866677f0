"""GIN: domain randomisation by random shallow intensity networks, without any target image."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.3"


@hookimpl
def attentkit_alignments() -> dict[str, str]:
    return {"gin": "attentkit_gin.gin:GIN"}
