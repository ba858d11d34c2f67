"""What is kept: versions, promotion, the served energy model.

Imports: names, space, options, tracking, results, statistics, decision, report.
"""
