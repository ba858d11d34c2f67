"""How it is told: figures, tables, HTML, PDF.

Imports: names, space, tracking, results, statistics, sweep, decision.
"""
