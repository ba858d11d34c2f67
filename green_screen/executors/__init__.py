"""Who runs a job: processes, a forkserver, Ray, the cool-down before it.

Imports: names, space, options, output, power, tracking.
"""
