"""Many runs: design, campaign, resume, progress, status.

Imports: names, space, locks, options, power, tracking, executors, training.
"""
