"""The energy of one Keras training: SMICallback, phases, log files.

Imports: names, power.
"""
