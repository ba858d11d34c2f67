"""What ``green-screen`` does on a command line.

Imports: names, space, options, output, power, tracking, executors, results, training, sweep,
report, registry, analysis.
"""
