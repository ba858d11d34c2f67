"""What is trained: models, precision, optimizers, schedules, quantization.

Imports: space, options.
"""
