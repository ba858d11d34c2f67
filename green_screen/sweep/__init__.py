"""Many runs: design, campaign, resume, progress, status.

Imports: names, space, locks, options, output, power, tracking, executors, results,
statistics, training.
"""
