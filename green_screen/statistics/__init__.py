"""What the runs mean: responses, model, tests, intervals, prediction.

Imports: names, space, results.
"""
