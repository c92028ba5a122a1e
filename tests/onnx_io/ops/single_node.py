"""Random models of one node each: what operators.py and raise_opset.py draw from.

Every function below returns Case or None (when the drawn opset has no such operator)."""
import dataclasses

import numpy as np
import onnx
from onnx import helper, numpy_helper

F32 = np.float32


@dataclasses.dataclass
class Case:
    op: str
    opset: int
    inputs: list  # arrays; None: omitted
    attributes: dict = dataclasses.field(default_factory=dict)
    outputs: int = 1
    constant: tuple = ()  # indices of inputs that are always initializers
    folds: bool = True  # whether folding is expected to know the value
    tolerance: float = 1e-6
    types: tuple = ()  # element types that numpy lacks: (input index, onnx type)


def dims(rng, rank, low=1, high=6):
    return [int(rng.integers(low, high)) for _ in range(rank)]


def array(rng, shape, dtype=F32):
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -20
        return np.asarray(rng.integers(low, 20, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape) * 2).astype(dtype)


def ints(values):
    return np.array(values, np.int64)


def some_axes(rng, rank, negative=True, low=0):
    count = int(rng.integers(low, rank + 1))
    axes = rng.permutation(rank)[:count].tolist()
    return [int(a) - rank if negative and rng.integers(0, 2) else int(a) for a in axes]


def choice(rng, values):
    return values[int(rng.integers(0, len(values)))]


UNARY = {"Relu": 7, "Sigmoid": 7, "Tanh": 7, "Abs": 7, "Neg": 7, "Exp": 7, "Log": 7, "Sqrt": 7,
         "Reciprocal": 7, "Floor": 7, "Ceil": 7, "Round": 11, "Sign": 9, "Erf": 9, "Softplus": 7,
         "Softsign": 7, "HardSwish": 14, "LeakyRelu": 7, "Elu": 7, "Selu": 7, "HardSigmoid": 7,
         "Gelu": 20, "Sin": 7, "Cos": 7, "Not": 7, "Identity": 7}


def unary(rng, opset):
    op = choice(rng, sorted(UNARY))
    if opset < UNARY[op]:
        return None
    attributes = {}
    dtype = np.bool_ if op == "Not" else F32
    if op in ("LeakyRelu", "Elu", "Selu", "HardSigmoid") and rng.integers(0, 2):
        attributes["alpha"] = float(rng.uniform(0.05, 1.5))
    if op == "HardSigmoid" and rng.integers(0, 2):
        attributes["beta"] = float(rng.uniform(0.1, 0.9))
    if op == "Selu" and rng.integers(0, 2):
        attributes["gamma"] = float(rng.uniform(0.5, 2))
    if op == "Gelu" and rng.integers(0, 2):
        attributes["approximate"] = choice(rng, ["none", "tanh"])
    if op in ("Abs", "Neg", "Sign", "Identity") and rng.integers(0, 2):
        dtype = choice(rng, [np.int32, np.int64, np.int8, np.float64])
    x = array(rng, dims(rng, rng.integers(0, 5)), dtype)
    if op in ("Log", "Sqrt"):
        x = np.asarray(np.abs(x) + F32(0.01))
    return Case(op, opset, [x], attributes, tolerance=3e-6)


BINARY = {"Add": 7, "Sub": 7, "Mul": 7, "Div": 7, "Pow": 7, "Mod": 10, "PRelu": 7, "Equal": 11,
          "Greater": 9, "Less": 9, "GreaterOrEqual": 12, "LessOrEqual": 12, "And": 7, "Or": 7,
          "Xor": 7}


def broadcast_pair(rng, a):
    b = [d if rng.integers(0, 3) else 1 for d in a]
    b = b[int(rng.integers(0, len(b) + 1)):]
    return [d if rng.integers(0, 3) or i < len(a) - len(b) else 1 for i, d in enumerate(a)], b


def binary(rng, opset):
    op = choice(rng, sorted(BINARY))
    if opset < BINARY[op]:
        return None
    a, b = broadcast_pair(rng, dims(rng, rng.integers(0, 5)))
    dtype = choice(rng, [F32, F32, np.float64, np.int32, np.int64])
    if op in ("And", "Or", "Xor"):
        dtype = np.bool_
    if op == "PRelu":
        dtype = F32
        if any(d != e and e != 1 for d, e in zip(a[::-1], b[::-1])):
            b = []
    if op == "Pow":
        dtype = choice(rng, [F32, np.float64])
    if op == "Mod":
        dtype = choice(rng, [np.int32, np.int64])
    x, y = array(rng, a, dtype), array(rng, b, dtype)
    if op == "Pow":
        x = np.asarray(np.abs(x) + dtype(0.1))
    if op in ("Div", "Mod"):
        y = np.where(y == 0, 1, y).astype(dtype)
    if rng.integers(0, 2) and op not in ("PRelu", "Pow", "Div", "Mod"):
        x, y = y, x
    return Case(op, opset, [x, y], tolerance=2e-6)


def variadic(rng, opset):
    op = choice(rng, ["Min", "Max", "Sum", "Mean"])
    if opset < 8:
        return None
    shape = dims(rng, rng.integers(1, 5))
    dtype = choice(rng, [F32, np.int64]) if op in ("Min", "Max") and opset >= 12 else F32
    arrays = [array(rng, broadcast_pair(rng, shape)[1], dtype) for _ in range(rng.integers(1, 5))]
    return Case(op, opset, arrays)


def where(rng, opset):
    if opset < 9:
        return None
    shape = dims(rng, rng.integers(0, 4))
    parts = [broadcast_pair(rng, shape)[1] for _ in range(3)]
    dtype = choice(rng, [F32, np.int64, np.int32, np.uint8])
    return Case("Where", opset, [array(rng, parts[0], np.bool_), array(rng, parts[1], dtype),
                                 array(rng, parts[2], dtype)])


def window(rng, spatial, size):
    kernel = [int(rng.integers(1, 4)) for _ in range(spatial)]
    attributes = {}
    if rng.integers(0, 2):
        attributes["strides"] = [int(rng.integers(1, 4)) for _ in range(spatial)]
    return kernel, attributes


def pads_for(rng, attributes, kernel, limit=None):
    mode = int(rng.integers(0, 5))
    if mode == 0:
        attributes["auto_pad"] = choice(rng, ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    elif mode < 3:
        attributes["pads"] = [int(rng.integers(0, k if limit else k + 1)) for k in kernel * 2]


def convolution(rng, opset):
    spatial = int(rng.integers(1, 4))
    group = int(rng.integers(1, 4))
    outputs, per_group = group * int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, attributes = window(rng, spatial, 6)
    if group > 1:
        attributes["group"] = group
    if rng.integers(0, 2):
        attributes["kernel_shape"] = kernel
    pads_for(rng, attributes, kernel)
    if rng.integers(0, 3) == 0 and "auto_pad" not in attributes:
        attributes["dilations"] = [int(rng.integers(1, 3)) for _ in range(spatial)]
    transposed = rng.integers(0, 3) == 0
    x = array(rng, [2, per_group * group] + [int(rng.integers(5, 10)) for _ in range(spatial)])
    if transposed:
        per_output = int(rng.integers(1, 4))
        w = array(rng, [per_group * group, per_output] + kernel)
        outputs = per_output * group
        if rng.integers(0, 3) == 0 and "strides" in attributes and "auto_pad" not in attributes:
            attributes["output_padding"] = [int(rng.integers(0, s)) for s in attributes["strides"]]
        elif rng.integers(0, 3) == 0:
            attributes.pop("pads", None)
            attributes["output_shape"] = [int(d) * s for d, s in
                                          zip(x.shape[2:], attributes.get("strides", [1] * 3))]
    else:
        w = array(rng, [outputs, per_group] + kernel)
    inputs = [x, w] + ([array(rng, [outputs])] if rng.integers(0, 2) else [])
    return Case("ConvTranspose" if transposed else "Conv", opset, inputs, attributes, folds=False)


def pool(rng, opset):
    op = choice(rng, ["MaxPool", "AveragePool", "LpPool"])
    spatial = int(rng.integers(1, 4))
    kernel, attributes = window(rng, spatial, 6)
    attributes["kernel_shape"] = kernel
    pads_for(rng, attributes, kernel, True)
    if opset >= (18 if op == "LpPool" else 10) and rng.integers(0, 2):
        attributes["ceil_mode"] = 1
    if op == "MaxPool" and opset >= 10 and rng.integers(0, 3) == 0:
        attributes["dilations"] = [int(rng.integers(1, 3)) for _ in range(spatial)]
        if attributes.get("auto_pad", "NOTSET") != "NOTSET":
            del attributes["auto_pad"]
    if op == "AveragePool" and rng.integers(0, 2):
        attributes["count_include_pad"] = 1
    x = array(rng, [2, 3] + [int(rng.integers(6, 12)) for _ in range(spatial)])
    outputs = 2 if op == "MaxPool" and opset >= 8 and rng.integers(0, 3) == 0 else 1
    return Case(op, opset, [x], attributes, outputs=outputs, folds=False)


def global_pool(rng, opset):
    op = choice(rng, ["GlobalAveragePool", "GlobalMaxPool"])
    return Case(op, opset, [array(rng, dims(rng, rng.integers(3, 6)))], folds=False)


def gemm(rng, opset):
    m, n, k = dims(rng, 3)
    ta, tb = int(rng.integers(0, 2)), int(rng.integers(0, 2))
    attributes = {}
    if ta or rng.integers(0, 2):
        attributes["transA"] = ta
    if tb or rng.integers(0, 2):
        attributes["transB"] = tb
    if rng.integers(0, 2):
        attributes.update(alpha=float(rng.uniform(0.5, 2)), beta=float(rng.uniform(0.5, 2)))
    inputs = [array(rng, [k, m] if ta else [m, k]), array(rng, [n, k] if tb else [k, n])]
    bias = opset < 11 or rng.integers(0, 2)
    if bias:
        inputs.append(array(rng, choice(rng, [[m, n], [n], [1, n], [m, 1], []])))
    return Case("Gemm", opset, inputs, attributes, folds=not bias, tolerance=1e-5)


def matmul(rng, opset):
    m, n, k = dims(rng, 3)
    a, b = broadcast_pair(rng, dims(rng, rng.integers(0, 3)))
    form = int(rng.integers(0, 6))
    if form == 0:
        return Case("MatMul", opset, [array(rng, [k]), array(rng, b + [k, n])], folds=False)
    if form == 1:
        return Case("MatMul", opset, [array(rng, a + [m, k]), array(rng, [k])], folds=False)
    return Case("MatMul", opset, [array(rng, a + [m, k]), array(rng, b + [k, n])], tolerance=1e-5)


def batch_normalization(rng, opset):
    shape = dims(rng, rng.integers(2, 6))
    vectors = [array(rng, [shape[1]]) for _ in range(3)] + [np.abs(array(rng, [shape[1]])) + F32(1)]
    return Case("BatchNormalization", opset, [array(rng, shape)] + vectors,
                {"epsilon": 1e-3} if rng.integers(0, 2) else {}, folds=False)


def softmax(rng, opset):
    rank = int(rng.integers(1, 5))
    attributes = {}
    if rng.integers(0, 2):
        attributes["axis"] = int(rng.integers(-rank if opset >= 11 else 0, rank))
    elif opset < 13 and rank == 1:
        return None
    return Case(choice(rng, ["Softmax", "LogSoftmax", "Hardmax"]), opset,
                [array(rng, dims(rng, rank))], attributes, folds=False)


def norm(rng, opset):
    op = choice(rng, ["InstanceNormalization", "LRN", "LayerNormalization"])
    shape = dims(rng, 4)
    if op == "LRN":
        return Case(op, opset, [array(rng, shape)], {"size": 3}, folds=False)
    if op == "InstanceNormalization":
        return Case(op, opset, [array(rng, shape)] + [array(rng, [shape[1]]) for _ in range(2)],
                    folds=False)
    if opset < 17:
        return None
    axis = int(rng.integers(-4, 4))
    return Case(op, opset, [array(rng, shape), array(rng, shape[axis:])], {"axis": axis},
                outputs=int(rng.integers(1, 4)), folds=False)


def clip(rng, opset):
    x = array(rng, dims(rng, rng.integers(0, 4)))
    if opset < 11:
        attributes = {}
        if rng.integers(0, 2):
            attributes["min"] = -1.5
        if rng.integers(0, 2):
            attributes["max"] = 0.75
        return Case("Clip", opset, [x], attributes)
    bounds = [F32(-1.25) if rng.integers(0, 2) else None, F32(0.5) if rng.integers(0, 2) else None]
    while bounds and bounds[-1] is None:
        bounds.pop()
    return Case("Clip", opset, [x] + [None if b is None else np.array(b) for b in bounds])


def dropout(rng, opset):
    x = array(rng, dims(rng, 2))
    if opset >= 12:
        inputs = [x] + ([np.array(0.4, F32)] if rng.integers(0, 2) else [])
        return Case("Dropout", opset, inputs)
    return Case("Dropout", opset, [x], {"ratio": 0.4} if rng.integers(0, 2) else {})


def shape(rng, opset):
    x = array(rng, dims(rng, rng.integers(0, 5), 0))
    attributes = {}
    if opset >= 15 and rng.integers(0, 2):
        attributes["start"] = int(rng.integers(-6, 6))
    if opset >= 15 and rng.integers(0, 2):
        attributes["end"] = int(rng.integers(-6, 6))
    return Case("Shape", opset, [x], attributes)


def size(rng, opset):
    return Case("Size", opset, [array(rng, dims(rng, rng.integers(0, 5), 0))])


def reshape(rng, opset):
    x = array(rng, dims(rng, 4), choice(rng, [F32, np.int64, np.uint8, np.float16]))
    a, b, c, d = x.shape
    target = choice(rng, [[0, -1], [-1], [a * b, c, d], [0, 0, -1], [1, -1, d], [a, b, c, d],
                          [a, -1, 1, d], [0, b * c, 0 if c == d else d][:2] + [d]])
    return Case("Reshape", opset, [x, ints(target)], constant=(1,))


def flatten(rng, opset):
    rank = int(rng.integers(1, 5))
    x = array(rng, dims(rng, rank))
    attributes = {}
    if rng.integers(0, 2):
        attributes["axis"] = int(rng.integers(-rank if opset >= 11 else 0, rank + 1))
    return Case("Flatten", opset, [x], attributes)


def squeeze(rng, opset):
    shape_ = [d if rng.integers(0, 2) else 1 for d in dims(rng, rng.integers(1, 5), 2)]
    ones = [i for i, d in enumerate(shape_) if d == 1]
    x = array(rng, shape_)
    if not ones or rng.integers(0, 3) == 0:
        return Case("Squeeze", opset, [x])
    axes = [a - len(shape_) if opset >= 11 and rng.integers(0, 2) else a
            for a in rng.permutation(ones)[:int(rng.integers(1, len(ones) + 1))].tolist()]
    if opset < 13:
        return Case("Squeeze", opset, [x], {"axes": axes})
    return Case("Squeeze", opset, [x, ints(axes)], constant=(1,))


def unsqueeze(rng, opset):
    x = array(rng, dims(rng, rng.integers(0, 4)))
    rank = x.ndim + int(rng.integers(1, 4))
    axes = [int(a) - rank if opset >= 11 and rng.integers(0, 2) else int(a)
            for a in rng.permutation(rank)[:rank - x.ndim]]
    if opset < 13:
        return Case("Unsqueeze", opset, [x], {"axes": sorted(axes) if opset < 11 else axes})
    return Case("Unsqueeze", opset, [x, ints(axes)], constant=(1,))


def concat(rng, opset):
    rank = int(rng.integers(1, 5))
    axis = int(rng.integers(0, rank))
    base, dtype = dims(rng, rank), choice(rng, [F32, np.int64, np.int32])
    parts = [base[:axis] + [int(rng.integers(0, 5))] + base[axis + 1:]
             for _ in range(rng.integers(1, 5))]
    shown = axis - rank if opset >= 11 and rng.integers(0, 2) else axis
    return Case("Concat", opset, [array(rng, p, dtype) for p in parts], {"axis": shown})


def split(rng, opset):
    rank = int(rng.integers(1, 4))
    axis, parts = int(rng.integers(0, rank)), int(rng.integers(1, 4))
    each = dims(rng, parts)
    explicit = bool(rng.integers(0, 2))
    shape_ = dims(rng, rank)
    shape_[axis] = sum(each) if explicit else parts * each[0]
    attributes = {"axis": axis - rank if opset >= 11 and rng.integers(0, 2) else axis}
    inputs = [array(rng, shape_)]
    if explicit and opset >= 13:
        inputs.append(ints(each))
    elif explicit:
        attributes["split"] = each
    elif opset >= 18:
        attributes["num_outputs"] = parts
        if shape_[axis] > parts and rng.integers(0, 2):
            chunk = -(-(shape_[axis] - 1) // parts)
            if chunk * (parts - 1) < shape_[axis] - 1:
                shape_[axis] -= 1
                inputs[0] = array(rng, shape_)
    return Case("Split", opset, inputs, attributes, outputs=parts, constant=(1,))


def slices(rng, opset):
    rank = int(rng.integers(1, 5))
    x = array(rng, dims(rng, rank, 1, 7), choice(rng, [F32, np.int64, np.uint8]))
    axes = some_axes(rng, rank, opset >= 10, 1)
    edge = [-(2**63), 2**63 - 1, -100, 100]
    starts = [int(choice(rng, edge[2:])) if rng.integers(0, 6) == 0 else int(rng.integers(-7, 7))
              for _ in axes]
    ends = [int(choice(rng, edge)) if rng.integers(0, 3) == 0 else int(rng.integers(-7, 8))
            for _ in axes]
    if opset < 10:
        return Case("Slice", opset, [x], {"starts": starts, "ends": ends, "axes": axes})
    inputs = [x, ints(starts), ints(ends), ints(axes)]
    if rng.integers(0, 2):
        steps = [int(choice(rng, [1, 2, 3, -1, -2, 100])) for _ in axes]
        # Backwards to INT64_MAX: onnx and ONNX Runtime differ about it.
        inputs[2] = ints([-e if s < 0 and e == 2**63 - 1 else e for e, s in zip(ends, steps)])
        inputs.append(ints(steps))
    elif len(axes) == rank and rng.integers(0, 2):
        inputs.pop()
    return Case("Slice", opset, inputs, constant=(1, 2, 3, 4))


def pad(rng, opset):
    rank = int(rng.integers(1, 5))
    x = array(rng, dims(rng, rank, 2, 6), choice(rng, [F32, F32, np.int64]) if opset >= 13 else F32)
    mode = choice(rng, ["constant", "reflect", "edge"] + (["wrap"] if opset >= 19 else []))
    if mode == "reflect":
        pads = [int(rng.integers(0, x.shape[i % rank])) for i in range(2 * rank)]
    elif mode == "constant":
        pads = [int(rng.integers(-1, 4)) for _ in range(2 * rank)]
    else:
        pads = [int(rng.integers(0, 3)) for _ in range(2 * rank)]
    attributes = {} if mode == "constant" and rng.integers(0, 2) else {"mode": mode}
    if opset < 11:
        attributes["pads"] = pads
        if rng.integers(0, 2):
            attributes["value"] = 1.5
        return Case("Pad", opset, [x], attributes)
    inputs = [x, ints(pads)]
    if rng.integers(0, 2):
        inputs.append(np.array(3, x.dtype))
    elif opset >= 18:
        inputs.append(None)
    if opset >= 18 and rng.integers(0, 2):
        axes = some_axes(rng, rank, True, 1)
        pads = [pads[a % rank] for a in axes] + [pads[rank + a % rank] for a in axes]
        inputs[1] = ints(pads)
        inputs.append(ints(axes))
    while inputs[-1] is None:
        inputs.pop()
    return Case("Pad", opset, inputs, attributes, constant=(1, 3))


def gather(rng, opset):
    rank = int(rng.integers(1, 4))
    x = array(rng, dims(rng, rank), choice(rng, [F32, np.int64, np.uint8, np.float16, np.bool_]))
    axis = int(rng.integers(0, rank))
    low = -x.shape[axis] if opset >= 11 else 0
    index = rng.integers(low, x.shape[axis], dims(rng, rng.integers(0, 3)))
    index = index.astype(choice(rng, [np.int32, np.int64]))
    return Case("Gather", opset, [x, np.array(index)], {"axis": axis} if axis else {})


def gather_elements(rng, opset):
    if opset < 11:
        return None
    rank = int(rng.integers(1, 4))
    x = array(rng, dims(rng, rank))
    axis = int(rng.integers(-rank, rank))
    shape_ = [int(rng.integers(1, d + 1)) for d in x.shape]
    shape_[axis] = int(rng.integers(1, 6))
    return Case("GatherElements", opset, [x, rng.integers(-x.shape[axis], x.shape[axis], shape_)],
                {"axis": axis})


def transpose(rng, opset):
    rank = int(rng.integers(0, 6))
    x = array(rng, dims(rng, rank), choice(rng, [F32, np.int64, np.uint8, np.float16]))
    return Case("Transpose", opset, [x],
                {"perm": [int(i) for i in rng.permutation(rank)]} if rank and rng.integers(0, 2)
                else {})


def depth_space(rng, opset):
    block = int(rng.integers(1, 4))
    n, c, h, w = dims(rng, 4, 1, 4)
    if rng.integers(0, 2):
        if opset < 13 and block == 1:
            return None
        return Case("SpaceToDepth", opset, [array(rng, [n, c, h * block, w * block])],
                    {"blocksize": block})
    attributes = {"blocksize": block}
    if opset >= 11 and rng.integers(0, 2):
        attributes["mode"] = choice(rng, ["DCR", "CRD"])
    return Case("DepthToSpace", opset, [array(rng, [n, c * block * block, h, w])], attributes)


def tile(rng, opset):
    rank = int(rng.integers(1, 5))
    return Case("Tile", opset, [array(rng, dims(rng, rank)), ints(dims(rng, rank, 0, 4))],
                constant=(1,))


def expand(rng, opset):
    if opset < 8:
        return None
    a, b = broadcast_pair(rng, dims(rng, rng.integers(0, 5)))
    return Case("Expand", opset, [array(rng, a, choice(rng, [F32, np.int64])), ints(b)],
                constant=(1,))


def constant_of_shape(rng, opset):
    if opset < 9:
        return None
    attributes = {}
    if rng.integers(0, 2):
        value = array(rng, [1], choice(rng, [F32, np.int64, np.uint8, np.bool_, np.float16]))
        attributes["value"] = numpy_helper.from_array(value)
    return Case("ConstantOfShape", opset, [ints(dims(rng, rng.integers(0, 4), 0))], attributes,
                constant=(0,))


def ranges(rng, opset):
    if opset < 11:
        return None
    dtype = choice(rng, [F32, np.int64, np.int32, np.float64])
    start, limit = rng.integers(-10, 10, 2)
    delta = int(choice(rng, [-3, -2, -1, 1, 2, 3]))
    return Case("Range", opset, [np.array(v, dtype) for v in (start, limit, delta)],
                constant=(0, 1, 2))


def cast(rng, opset):
    kinds = [F32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_, np.int16,
             np.uint16]
    source, target = choice(rng, kinds), choice(rng, kinds)
    x = array(rng, dims(rng, rng.integers(0, 4)), source)
    packed = packed_types(opset)
    if packed and rng.integers(0, 2):
        kind = choice(rng, packed)
        target = choice(rng, [F32, np.float16, np.int8, np.uint8, np.int32, np.int64])
        if kind in (onnx.TensorProto.INT2, onnx.TensorProto.INT4) and target == np.uint8:
            target = np.int8
        return Case("Cast", opset, [packed_array(rng, x.shape, kind)],
                    {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))}, types=((0, kind),))
    if np.dtype(source).kind == "f" and np.dtype(target).kind == "u":
        x = np.asarray(np.abs(x))
    return Case("Cast", opset, [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))})


def reduce(rng, opset):
    op = choice(rng, ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
                      "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"])
    rank = int(rng.integers(1, 5))
    x = array(rng, dims(rng, rank))
    if op == "ReduceLogSum":
        x = np.asarray(np.abs(x) + F32(0.1))
    attributes = {"keepdims": int(rng.integers(0, 2))} if rng.integers(0, 2) else {}
    axes = some_axes(rng, rank, opset >= 11)
    folds = op != "ReduceLogSumExp"
    if opset < (13 if op == "ReduceSum" else 18):
        if axes:
            attributes["axes"] = axes
        return Case(op, opset, [x], attributes, folds=folds, tolerance=1e-5)
    if rng.integers(0, 3) == 0:
        attributes["noop_with_empty_axes"] = 1
        if not axes and op not in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
            axes = [0]  # runtimes disagree on what a no-op of these is
    return Case(op, opset, [x] + ([ints(axes)] if axes else []), attributes, constant=(1,),
                folds=folds, tolerance=1e-5)


def arg(rng, opset):
    rank = int(rng.integers(1, 4))
    x = array(rng, dims(rng, rank), choice(rng, [F32, np.int32]))
    attributes = {"axis": int(rng.integers(-rank if opset >= 11 else 0, rank))}
    if rng.integers(0, 2):
        attributes["keepdims"] = 0
    if opset >= 12 and rng.integers(0, 2):
        attributes["select_last_index"] = 1
    return Case(choice(rng, ["ArgMax", "ArgMin"]), opset, [x], attributes)


def topk(rng, opset):
    rank = int(rng.integers(1, 4))
    x = array(rng, dims(rng, rank, 2, 7))
    axis = int(rng.integers(-rank if opset >= 11 else 0, rank))
    k = int(rng.integers(1, x.shape[axis] + 1))
    if opset < 10:
        return Case("TopK", opset, [x], {"k": k, "axis": axis}, outputs=2, folds=False)
    return Case("TopK", opset, [x, ints([k])], {"axis": axis}, outputs=2, constant=(1,), folds=False)


def resize(rng, opset):
    x = array(rng, [1, 2, 5, 7])
    scales = np.array([1, 1, choice(rng, [1.0, 2.0, 1.5, 0.6]), choice(rng, [2.0, 3.0, 0.5])], F32)
    if opset < 9:
        return Case("Upsample", opset, [x], {"scales": [1.0, 1.0, 2.0, 3.0]}, folds=False)
    if opset == 9:
        return Case("Upsample", opset, [x, np.array([1, 1, 2, 3], F32)], constant=(1,), folds=False)
    if opset == 10:
        return Case("Resize", opset, [x, scales], constant=(1,), folds=False)
    roi = np.zeros(0, F32)
    if rng.integers(0, 2):
        inputs = [x, roi, scales]
    else:
        inputs = [x, roi, np.zeros(0, F32) if opset < 13 else None, ints([1, 2, 9, 11])]
    return Case("Resize", opset, inputs, constant=(2, 3), folds=False)


def packed_types(opset):
    """2 and 4 bit types, which numpy lacks."""
    four = [onnx.TensorProto.INT4, onnx.TensorProto.UINT4] if opset >= 21 else []
    return four + ([onnx.TensorProto.INT2, onnx.TensorProto.UINT2] if opset >= 25 else [])


def packed_array(rng, shape, kind):
    bits = 4 if kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else 2
    signed = kind in (onnx.TensorProto.INT4, onnx.TensorProto.INT2)
    low, high = (-(2**(bits - 1)), 2**(bits - 1)) if signed else (0, 2**bits)
    return np.asarray(rng.integers(low, high, shape)).astype(np.int8 if signed else np.uint8)


def quantize(rng, opset):
    if opset < 10:
        return None
    rank = int(rng.integers(1, 5))
    x = array(rng, dims(rng, rank))
    axis = int(rng.integers(-rank, rank))
    dtype = choice(rng, [np.uint8, np.int8])
    attributes, shape_ = {}, []
    if opset >= 13 and rng.integers(0, 2):
        attributes["axis"], shape_ = axis, [x.shape[axis]]
    scale = np.asarray(np.abs(array(rng, shape_)) * F32(0.1) + F32(0.01), F32)
    if opset >= 21 and rng.integers(0, 2):
        kinds = [onnx.TensorProto.INT16, onnx.TensorProto.UINT16, onnx.TensorProto.INT8]
        attributes["output_dtype"] = choice(rng, kinds + packed_types(opset))
        return Case("QuantizeLinear", opset, [x, scale], attributes)
    inputs = [x, scale]
    if rng.integers(0, 2):
        inputs.append(array(rng, shape_, dtype))
    return Case("QuantizeLinear", opset, inputs, attributes)


def dequantize(rng, opset):
    if opset < 10:
        return None
    rank = int(rng.integers(1, 5))
    wide = [np.int16, np.uint16] if opset >= 21 else []
    kind = choice(rng, [np.uint8, np.int8, np.int32] + wide + packed_types(opset) * 2)
    packed = isinstance(kind, int)
    shape_ = dims(rng, rank)
    x = packed_array(rng, shape_, kind) if packed else array(rng, shape_, kind)
    axis = int(rng.integers(-rank, rank))
    attributes, shape_ = {}, []
    if opset >= 13 and rng.integers(0, 2):
        attributes["axis"], shape_ = axis, [x.shape[axis]]
    if opset >= 21 and rng.integers(0, 3) == 0 and kind is not np.int32:
        block = int(rng.integers(1, 4))
        attributes.update(axis=axis, block_size=block)
        shape_ = list(x.shape)
        shape_[axis] = -(-x.shape[axis] // block)
    scale = array(rng, shape_, choice(rng, [F32, F32, np.float16]) if opset >= 19 else F32)
    inputs, types = [x, scale], ((0, kind),) if packed else ()
    if kind is not np.int32 and rng.integers(0, 2):
        inputs.append(packed_array(rng, shape_, kind) if packed else array(rng, shape_, kind))
        types += ((2, kind),) if packed else ()
    return Case("DequantizeLinear", opset, inputs, attributes, types=types)


GENERATORS = [unary, binary, variadic, where, convolution, pool, global_pool, gemm, matmul,
              batch_normalization, softmax, norm, clip, dropout, shape, size, reshape, flatten,
              squeeze, unsqueeze, concat, split, slices, pad, gather, gather_elements, transpose,
              depth_space, tile, expand, constant_of_shape, ranges, cast, reduce, arg, topk, resize,
              quantize, dequantize]

IR_OF_OPSET = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8,
               19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 11, 25: 13}


def tensor(name, values, onnx_type=None):
    if onnx_type is None:
        return numpy_helper.from_array(values, name)
    return helper.make_tensor(name, onnx_type, values.shape, values.flatten().tolist())


def element_type(case, index):
    for at, onnx_type in case.types:
        if at == index:
            return onnx_type
    return helper.np_dtype_to_tensor_dtype(case.inputs[index].dtype)


def build(case, fold, batch_name=None):
    """The model; `fold`: all inputs are initializers. Outputs are declared without types."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    outputs = [f"y{k}" for k in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="node", **case.attributes)
    typed = dict(case.types)
    constants, inputs = [], []
    for i, x in enumerate(case.inputs):
        if x is None:
            continue
        info = helper.make_tensor_value_info(names[i], element_type(case, i), x.shape)
        if fold or i in case.constant or i in typed:
            constants.append(tensor(names[i], x, typed.get(i)))
            if IR_OF_OPSET[case.opset] < 4:
                inputs.append(info)
        else:
            inputs.append(info)
    graph = helper.make_graph([node], "one", inputs,
                              [onnx.ValueInfoProto(name=name) for name in outputs], constants)
    return helper.make_model(graph, ir_version=IR_OF_OPSET[case.opset],
                             opset_imports=[helper.make_opsetid("", case.opset)])
