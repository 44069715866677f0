"""Campaigns: thousands of small disasters, each with a number, and what survived them.

    make campaign                                              # all of them, as long as they take
    PYTHONPATH=benchmarks:tests python -m campaigns kills --tries 20

A try is a function of the campaign's seed and its own number. What has been tried is in WORK/NAME-SEED.jsonl, so that a campaign
that was stopped goes on, and `--tries` may be raised. `--write` makes benchmarks/results/campaigns.md of the journals, with
`--tries 0` without trying anything more. The tests run a short form of each.
"""
