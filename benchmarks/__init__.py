"""What the product promises, measured: `python -m benchmarks [name ...]`.

Every figure is a ratio of two things measured in the same run, so that a slow or busy machine tells the same.
"""
