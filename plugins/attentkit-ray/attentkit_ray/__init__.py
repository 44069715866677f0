"""Ray as a launcher: each run of a comparison is a detached actor."""

from attent_kit import hookimpl

ATTENTKIT_INTERFACE = "1.1"


@hookimpl
def attentkit_launchers() -> dict[str, str]:
    return {"ray": "attentkit_ray.ray:Ray"}
