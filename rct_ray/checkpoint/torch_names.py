"""The names that may stand in a PyTorch file's pickle: what describes tensors, and what is harmless beside them.

None of them is ever looked up; each only says what is described.
"""

from __future__ import annotations

# torch's name of a dtype: ours, and its bytes.
_DTYPES = {
    "float64": ("F64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1), "float8_e8m0fnu": ("F8_E8M0", 1),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 1), "float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "float4_e2m1fn_x2": ("F4", 1), "bool": ("BOOL", 1),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1),
    "uint64": ("U64", 8), "uint32": ("U32", 4), "uint16": ("U16", 2), "uint8": ("U8", 1),
    "complex128": ("<c16", 16), "complex64": ("C64", 8), "complex32": ("<c4", 4),
}  # fmt: skip
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexDouble": "complex128", "ComplexFloat": "complex64",
}  # fmt: skip
_QUANTIZED = {"QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}
KINDS = (
    {f"torch.{name}": dtype for name, dtype in _DTYPES.items()}
    | {f"torch.{name}Storage": _DTYPES[dtype] for name, dtype in _STORAGES.items()}
    | {f"torch.{name}Storage": (name, size) for name, size in _QUANTIZED.items()}
    | dict.fromkeys(("torch.UntypedStorage", "torch.storage.UntypedStorage"), ("U8", 1))
)

# Where each of torch's functions has what: dtype (in the storage if -1), metadata (never if -1).
REBUILDS = {
    "torch._utils._rebuild_tensor": (-1, -1),
    "torch._utils._rebuild_tensor_v2": (-1, 6),
    "torch._utils._rebuild_tensor_v3": (6, 7),
    "torch._utils._rebuild_qtensor": (-1, -1),
}
WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
TYPED = "torch._tensor._rebuild_from_type_v2"
META = "torch._utils._rebuild_meta_tensor_no_storage"
SPARSE = "torch._utils._rebuild_sparse_tensor"
_SCHEMES = {f"torch.per_{what}" for what in ("tensor_affine", "channel_affine", "tensor_symmetric")}
_LAYOUTS = {"torch.strided", "torch.sparse_coo", "torch.sparse_csr", "torch.contiguous_format"}
_NAMES = KINDS.keys() | REBUILDS.keys() | WRAPPERS | {TYPED, META, SPARSE} | _SCHEMES | _LAYOUTS

_COLLECTIONS = {"set", "frozenset", "list", "tuple", "bytearray", "complex", "slice", "range"}
_PLAIN = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _COLLECTIONS}
_HARMLESS = (
    {"torch.Size", "torch.device", "torch.Tensor", "torch.serialization._get_layout", "_codecs.encode"}
    | {"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "argparse.Namespace", "numpy.dtype"}
    | {"numpy.ndarray", "pathlib.PosixPath", "pathlib._local.PosixPath", "copyreg._reconstructor"}
    | {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
    | {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
    | {"builtins.object", "__builtin__.object", "datetime.datetime", "datetime.timedelta"}
)


def is_needed(name: str) -> bool:
    """Whether a dotted name is one that descriptions of tensors are made of.

    Parameters
    ----------
    name : str
        Such as ``torch.FloatStorage``.

    Returns
    -------
    bool
        True for rebuilding functions, storages, dtypes and layouts.
    """
    return name in _NAMES


def is_harmless(name: str) -> bool:
    """Whether a dotted name may stand in a checkpoint's pickle.

    Parameters
    ----------
    name : str
        Such as ``torch.Size``.

    Returns
    -------
    bool
        True also for what trainers keep beside the weights: Python's containers, NumPy's scalars.
    """
    return is_needed(name) or name in _PLAIN or name in _HARMLESS
