"""One run, from request to logged result.

Imports: names, space, options, power, tracking, measurement, network, data.
"""
