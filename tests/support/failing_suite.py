"""A suite of three rows, of which one fails, and the command that runs it."""

SUITE = """
name = "mine"
directions = ["red2blue"]
[domains]
red = "{source}"
blue = "{target}"
[options]
segment_steps = 2
segment_batch_size = 2
[options.segmentor]
encoder = "tu-test_resnet"
encoder_depth = 3
decoder_channels = [16, 8, 8]
[[rows]]
label = "W/o"
alignment = "source_only"
[[rows]]
label = "Broken"
alignment = "source_only"
options = {{ learning_rate = 1e30 }}
[[rows]]
label = "Supervised"
alignment = "supervised"
"""


def compare(attentkit, suite, out, *more):
    return attentkit("compare", suite, "-d", "cpu", "-o", out, "--set", "log_steps=1", *more)
