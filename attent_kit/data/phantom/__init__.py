"""The phantom: a made-up abdomen in CT and in T2-SPIR MR, different patients in each, for tests and for trying things.

Anatomy is drawn from implicit shapes in millimetres, images from attenuation and relaxation times. It shows that
software runs and that a method adapts; a score on it says nothing about patients.
"""

from attent_kit.data.phantom.case import SIZES, PhantomCase, PhantomSize, phantom_case
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.phantom.write import WrittenPhantom, write_phantom

__all__ = [
    "ORGANS", "SIZES", "PhantomCase", "PhantomOptions", "PhantomSize", "WrittenPhantom", "phantom_case", "write_phantom",
]  # fmt: skip
