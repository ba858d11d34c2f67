"""How an analysis runs, from runs to decision.

Imports: names, options, output, tracking, executors, results, statistics, training, sweep,
decision, report, registry.
"""
