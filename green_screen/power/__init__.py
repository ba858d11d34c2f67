"""The meter: what a block of code costs in energy, board by board.

Imports: names.
"""
