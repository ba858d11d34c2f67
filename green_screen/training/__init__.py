"""One run, from request to logged result.

Imports: names, space, options, locks, power, tracking, measurement, network, data.
"""
