"""What to choose: selection, trade-off, final comparison.

Imports: names, space, options, power, tracking, executors, results, statistics, sweep.
"""
