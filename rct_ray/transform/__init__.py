"""Pure mathematics: bases, moments, principal components, towers, nulls and code lengths.

No files, no Ray. The functions here work on moments and arrays; the scikit-learn estimators built on them
are in `rct_ray.transform.estimators` (imported only when asked for, as scikit-learn takes a while to load).
"""
