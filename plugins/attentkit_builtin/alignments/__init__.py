"""The methods: one paper, one file, to be read from top to bottom. Files repeat each other where papers do.

A preset stands whole in the file of its method. Published lengths are epochs over the authors' own slices; the steps are what
these come to for about a thousand slices of each domain. Input size and augmentation belong to `attentkit prepare` and to the
settings of a run, not to a preset.
"""
