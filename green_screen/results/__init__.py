"""What came back: reading a store into tables, importing runs made elsewhere.

Imports: names, strict_yaml, space, options, tracking, measurement.
"""
