"""What it is trained on: images, splits, preprocessing, augmentation, batches.

Imports: space, locks, options, network.
"""
