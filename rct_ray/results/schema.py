"""Schemas of the tables of a run: every column, its unit, and whether it may be null."""

import pyarrow as pa

SCHEMA_VERSION = "1"

_TEXT, _FLAG, _REAL = pa.string(), pa.bool_(), pa.float64()
_INT16, _INT32, _INT64 = pa.int16(), pa.int32(), pa.int64()


def _list_of(element: pa.DataType) -> pa.DataType:
    # "element" is Parquet's own name for it: any other name changes in a round trip.
    return pa.list_(pa.field("element", element, nullable=False))


def _column(name: str, arrow_type: pa.DataType, description: str) -> pa.Field:
    """Return the field for `name`; a trailing ``?`` lets it be null."""
    metadata = {"description": description}
    return pa.field(name.removesuffix("?"), arrow_type, nullable=name.endswith("?"), metadata=metadata)


def _schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={"rct_ray.schema": SCHEMA_VERSION})


_CHECKPOINT = _column("checkpoint", _TEXT, "Label of the checkpoint that the row is about.")

LEVELS = _schema(
    _CHECKPOINT,
    _column("step?", _INT64, "Training step of the checkpoint, where its metadata or else its name says so."),
    _column("scope", _TEXT, "What the tower is over: tensor, width (all matrices of one width) or model."),
    _column("name", _TEXT, "Name of the tensor, the width group or the model."),
    _column("width", _INT32, "Columns d of the matrix; 0 where widths are mixed (scope model)."),
    _column("level", _INT16, "Level of the tower; 0 is the weights themselves."),
    _column("stage", _TEXT, "Transform that made this level from the one below, as written in the tower."),
    _column("rows", _INT64, "Rows of weights in the scope."),
    _column("weights", _INT64, "Weights in the scope: rows * width."),
    _column("n_components", _INT32, "Numbers kept for each row at this level."),
    _column(
        "params", _INT64, "Parameters charged: numbers kept and every decoder up to this level (floats)."
    ),
    _column("side_bits", _REAL, "Bits charged beside the parameters, such as log2(d!) for an ordering."),
    _column("level_ratio", _REAL, "Compression by this level alone: params of the level below / params."),
    _column("cumulative_ratio", _REAL, "Compression up to this level: weights / params."),
    _column(
        "participation_ratio?", _REAL, "(sum lambda)^2 / sum lambda^2 of the centred scatter; null for model."
    ),
    _column("n_keep?", _INT32, "Fewest components whose eigenvalues sum to threshold of the total."),
    _column("threshold?", _REAL, "Share of the eigenvalues' total that n_keep must reach."),
    _column("r2_prev", _REAL, "R2 of this level against the level below, not against the weights."),
    _column("r2", _REAL, "1 - sse / sst with sst about zero: the energy kept, 0 to 1 for least squares."),
    _column("r2_centered", _REAL, "1 - SSE / SST with SST about the scope's grand mean."),
    _column(
        "null_r2?",
        _REAL,
        "r2 of noise of the same rows, width, mean and variance, coded with as many components.",
    ),
    _column("null_participation_ratio?", _REAL, "participation_ratio of the same structureless weights."),
    _column("lift?", _REAL, "(r2 - null_r2) / (1 - null_r2): what is kept beyond chance."),
    _column(
        "svd_bound_r2?",
        _REAL,
        "R2 of the best matrix of rank r, the largest with r * (rows + width) <= params; null where unknown.",
    ),
    _column("sse", _REAL, "Sum of squared errors of the reconstructed weights, in squared weight units."),
    _column("sst", _REAL, "Sum of squares of the weights about zero, in squared weight units."),
    _column(
        "sqnr_db", _REAL, "Signal to error ratio: 10 log10(sst / sse), in dB; inf where nothing is lost."
    ),
    _column(
        "relative_error", _REAL, "sqrt(sse / sst): Frobenius norm of the error over that of the weights."
    ),
    _column(
        "pca_method?",
        _TEXT,
        "How the PCA's input was summed up: moments, tsqr, gather or randomized; null for other stages.",
    ),
    _column(
        "bits_per_weight", _REAL, "Description length at the target R2 / weights: parameters, side, residual."
    ),
    _column(
        "fixed_point",
        _FLAG,
        "True at the first level whose successor charges no fewer parameters; at none if the tower ends first.",
    ),
    _column("incompressible", _FLAG, "True at a level that needs every component."),
    _column(
        "code_bits?", _REAL, "Bits of the code itself where it is quantized, entropy-coded; within params."
    ),
    _column(
        "converged?", _REAL, "Share of the rows whose fit converged, where each row is fitted by itself."
    ),
)

TENSORS = _schema(
    _CHECKPOINT,
    _column("name", _TEXT, "Name of the tensor in the checkpoint."),
    _column("file", _TEXT, "File of the checkpoint that holds the tensor."),
    _column("dtype", _TEXT, "Type of the stored values."),
    _column("shape", _list_of(_INT64), "Shape as stored; empty for a scalar."),
    _column("bytes", _INT64, "Bytes that the tensor takes in its file."),
    _column("rows", _INT64, "Rows after folding to a matrix."),
    _column("width", _INT32, "Columns after folding to a matrix."),
    _column("mean?", _REAL, "Mean of the values; null where the tensor was not read."),
    _column("std?", _REAL, "Standard deviation of the values about their mean (divided by n)."),
    _column("min?", _REAL, "Smallest value."),
    _column("max?", _REAL, "Largest value."),
    _column("nan_count?", _INT64, "Values that are NaN."),
    _column("inf_count?", _INT64, "Values that are infinite."),
    _column("norm?", _REAL, "Frobenius norm."),
    _column("stable_rank?", _REAL, "Squared Frobenius norm / squared largest singular value."),
    _column("status", _TEXT, "used, skipped, or nonfinite (read, but with NaN or infinity in it)."),
    _column("skip_reason?", _TEXT, "Why the tensor is in no tower; null for used tensors."),
)

SHARDS = _schema(
    _CHECKPOINT,
    _column("shard", _INT32, "Index of the shard in the order of the plan."),
    _column("tensor", _TEXT, "Name of the tensor that the shard is of."),
    _column("row_start", _INT64, "First row of the shard."),
    _column("row_stop", _INT64, "Row after the last of the shard."),
    _column("rows", _INT64, "Rows really read: fewer than row_stop - row_start when rows are sampled."),
    _column("bytes", _INT64, "Bytes read."),
    _column("seconds_read", _REAL, "Time spent reading, in seconds."),
    _column("seconds_encode", _REAL, "Time spent on the moments, in seconds."),
    _column("seconds", _REAL, "Time from start to end of the shard, in seconds."),
    _column("worker", _TEXT, "Worker that did it."),
    _column("attempt", _INT16, "Which attempt succeeded."),
)

DECODERS = _schema(
    _CHECKPOINT,
    _column("scope", _TEXT, "Scope of the tower, as in levels."),
    _column("name", _TEXT, "Name within the scope, as in levels."),
    _column("width", _INT32, "Columns d of the matrix that the tower is over."),
    _column("level", _INT16, "Level that the matrix decodes."),
    _column("stage", _TEXT, "Transform of that level."),
    _column("kind", _TEXT, "What the matrix is: basis, gaussians, components, mean, order, offset or step."),
    _column("rows", _INT32, "Rows of the matrix."),
    _column("columns", _INT32, "Columns of the matrix."),
    _column("values", _list_of(_REAL), "The rows * columns entries, row after row."),
)

FRONTIER = _schema(
    _CHECKPOINT,
    _column("step?", _INT64, "Training step of the checkpoint, as in levels."),
    _column("scope", _TEXT, "tensor, or model: all tensors at equal settings added up."),
    _column("name", _TEXT, "Name of the tensor, or model."),
    _column("width", _INT32, "Columns of the matrix; 0 where widths are mixed."),
    _column("weights", _INT64, "Weights in the scope."),
    _column("kind", _TEXT, "code; null: the same code on shuffled entries; or reference."),
    _column(
        "curve",
        _TEXT,
        "Basis and ordering as a tower has them; of references truncated SVD or round to nearest.",
    ),
    _column("share?", _REAL, "Components K over columns d; null for references."),
    _column("threshold?", _REAL, "Share of the variance that a PCA of the code keeps; null: no PCA."),
    _column(
        "bits?",
        _INT16,
        "Bits that a number of the code, or of the weights themselves, is rounded to; null: 16-bit floats.",
    ),
    _column("bits_per_weight", _REAL, "All that is charged, over weights: code, decoders, ordering."),
    _column("r2", _REAL, "1 - sse / sst with sst about zero: the energy kept."),
    _column("sse", _REAL, "Sum of squared errors of the reconstructed weights, in squared weight units."),
    _column("sst", _REAL, "Sum of squares of the weights about zero, in squared weight units."),
    _column("front", _FLAG, "Whether no code of the scope keeps more for as few bits."),
)

TABLES = {"levels": LEVELS, "tensors": TENSORS, "shards": SHARDS, "decoders": DECODERS}
