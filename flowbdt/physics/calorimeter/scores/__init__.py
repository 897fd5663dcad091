"""Metrics of the CaloChallenge, with its thresholds, features and binnings.

Arrays in, `Result` out, as in `flowbdt.evaluation.metrics`. Showers are `flowbdt.physics.Showers`,
or a `ShowerFile` where they do not fit in memory.
"""
