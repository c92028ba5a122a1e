"""device_operators.py OPERATOR_RUNNER [COUNT [SEED]]: random one-node models on the CPU device: the
values against ONNX Runtime, the gradients against differences of ONNX's reference in double."""
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "onnx_io" / "ops"))
import single_node as draw  # noqa: E402

GENERATORS = [draw.unary, draw.binary, draw.variadic, draw.convolution, draw.convolution, draw.pool,
              draw.pool, draw.global_pool, draw.gemm, draw.matmul, draw.batch_normalization,
              draw.softmax, draw.clip, draw.norm, draw.reshape, draw.flatten, draw.squeeze,
              draw.unsqueeze, draw.concat, draw.slices, draw.gather, draw.pad, draw.transpose,
              draw.reduce, draw.quantize, draw.dequantize]
SETTINGS = {"Reshape", "Slice", "Gather", "Pad", "Clip", "Squeeze", "Unsqueeze", "ReduceMean",
            "ReduceSum", "ReduceMax", "Dropout"}
# operators whose gradient jumps are not where the function has its corners, or has none
NO_GRADIENT = {"QuantizeLinear", "DequantizeLinear", "Floor", "Ceil", "Round", "ReduceMax", "Erf",
               "Softplus", "GlobalMaxPool", "Dropout"}
# linear in each operand: differences of any size are exact, so ONNX Runtime can give them
LINEAR = {"Conv", "Gemm", "MatMul", "Add", "Sub", "Sum", "Concat", "Slice", "Gather", "Pad",
          "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "ReduceMean",
          "ReduceSum", "AveragePool", "GlobalAveragePool", "Neg"}
ARITHMETIC = {"Conv", "Gemm", "MatMul", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool"}


def variable(case, i, rng):
    """Whether input i is fed rather than an initializer."""
    if case.op in ("Conv", "BatchNormalization") or case.op in SETTINGS:
        return i == 0
    if case.op in ("Gemm", "MatMul", "PRelu", "QuantizeLinear", "DequantizeLinear"):
        return i == 0 or (case.op in ("Gemm", "MatMul") and rng.integers(0, 3) == 0)
    return i == 0 or bool(rng.integers(0, 2))


def build(case, fed):
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    node = helper.make_node(case.op, names, ["y0"], name="node", **case.attributes)
    inputs, constants = [], []
    for i, x in enumerate(case.inputs):
        if x is None:
            continue
        if i in fed:
            kind = helper.np_dtype_to_tensor_dtype(x.dtype)
            inputs.append(helper.make_tensor_value_info(names[i], kind, x.shape))
        else:
            constants.append(numpy_helper.from_array(x, names[i]))
            if draw.IR_OF_OPSET[case.opset] < 4:
                kind = helper.np_dtype_to_tensor_dtype(x.dtype)
                inputs.append(helper.make_tensor_value_info(names[i], kind, x.shape))
    graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name="y0")], constants)
    return helper.make_model(graph, ir_version=draw.IR_OF_OPSET[case.opset],
                             opset_imports=[helper.make_opsetid("", case.opset)])


def runtime(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        session = onnxruntime.InferenceSession(typed.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]
    except Exception:
        return None


def batch_norm(model, inputs, statistics):
    """In double (ONNX's reference rounds to fp32)."""
    x, gamma, beta, mean, var = (inputs[f"x{i}"] for i in range(5))
    epsilon = next((a.f for a in model.graph.node[0].attribute if a.name == "epsilon"), 1e-5)
    if statistics:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        mean, var = x.mean(axes), x.var(axes)
    shape = [-1 if i == 1 else 1 for i in range(x.ndim)]
    gamma, beta, mean, var = (v.reshape(shape) for v in (gamma, beta, mean, var))
    return (x - mean) / np.sqrt(var + epsilon) * gamma + beta


def reference(model, inputs, statistics):
    """y0 in double: ONNX's reference computes in the type of what it is given."""
    if model.graph.node[0].op_type == "BatchNormalization":
        return batch_norm(model, inputs, statistics)
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.initializer[:]
    del wide.graph.input[:]
    for name, x in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        wide.graph.input.append(helper.make_tensor_value_info(name, kind, x.shape))
    return ReferenceEvaluator(wide).run(None, inputs)[0]


def moved_runtime(case, inputs):
    arrays = [None if x is None else
              inputs[f"x{i}"].astype(np.float32) if x.dtype == np.float32 else x
              for i, x in enumerate(case.inputs)]
    moved = dataclasses.replace(case, inputs=arrays)
    return runtime(build(moved, {0}), {"x0": arrays[0]})


def run(program, folder, model, feeds, mode):
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path)
    for name, x in feeds.items():
        x.astype(np.float32).tofile(os.path.join(folder, name + ".bin"))
    return subprocess.run([program, path, folder, mode], capture_output=True, text=True, timeout=60)


def load(folder, name, shape):
    return np.fromfile(os.path.join(folder, name), np.float32).reshape(shape)


def check_gradient(program, folder, case, model, feeds, y, rng):
    seed = rng.standard_normal(y.shape).astype(np.float32)
    seed.tofile(os.path.join(folder, "y0.seed"))
    statistics = case.op == "BatchNormalization" and rng.integers(0, 2) == 0
    done = run(program, folder, model, feeds, "statistics" if statistics else "gradient")
    if done.returncode:
        return None if "no gradient" in done.stderr or "not supported" in done.stderr \
            else "gradient: " + done.stderr.strip()
    inputs = {f"x{i}": x.astype(np.float64) if x.dtype == np.float32 else x
              for i, x in enumerate(case.inputs) if x is not None}
    if case.op not in LINEAR and not statistics:
        try:  # the reference knows the newest opset alone
            if not np.allclose(reference(model, inputs, False), y, rtol=1e-4, atol=1e-4):
                return None
        except Exception:
            return None
    for i, x in enumerate(case.inputs):
        path = os.path.join(folder, f"x{i}.gradient")
        if x is None or x.dtype != np.float32 or x.size == 0 or not os.path.exists(path):
            continue
        gradient = load(folder, f"x{i}.gradient", x.shape).astype(np.float64)
        direction = rng.standard_normal(x.shape)
        h = 1.0 if case.op in LINEAR else 1e-6
        sums = []
        for sign in (1, -1):
            moved = dict(inputs)
            moved[f"x{i}"] = np.asarray(inputs[f"x{i}"] + sign * h * direction)
            try:
                if case.op in LINEAR:
                    value = moved_runtime(case, moved)
                else:
                    value = reference(model, moved, statistics)
                sums.append(float(np.sum(value.astype(np.float64) * seed)))
            except Exception:
                return None
        want, got = (sums[0] - sums[1]) / (2 * h), float(np.sum(gradient * direction))
        scale = np.sqrt(np.sum(gradient ** 2)) * np.sqrt(x.size) + 1e-2
        if abs(want - got) > 2e-4 * scale:
            return f"gradient of input {i}: {got}, differences give {want}"
    return ""


def halved(case):
    """The case with its fp32 operands in half."""
    inputs = [x.astype(np.float16) if x is not None and x.dtype == np.float32 else x
              for x in case.inputs]
    return dataclasses.replace(case, inputs=inputs)


def half_close(got, want, case):
    """The device computes in fp32; the runtime rounds the result to half, and sums and the parts of
    composed functions on the way: by 2^-11 each of what is largest among them."""
    if case.op == "QuantizeLinear":
        return np.abs(got - want).max() <= 1
    largest = np.nan_to_num(np.abs(want), posinf=65504.0).max() if case.op in ARITHMETIC else 0.0
    beyond = np.isinf(want) & (np.abs(got) > 65504 * (1 - 2.0 ** -9)) & (np.sign(got) == np.sign(want))
    close = np.isclose(got, want, rtol=2.0 ** -9, atol=2.0 ** -10 * largest + 2.0 ** -24,
                       equal_nan=True)
    return bool(np.all(close | beyond))


def check(case, program, folder, rng):
    fed = {i for i, x in enumerate(case.inputs) if x is not None and variable(case, i, rng)}
    if case.inputs[0].size == 0 or not all(case.inputs[i].dtype in (np.float32, np.float16) or
                                           case.op == "DequantizeLinear" for i in fed):
        return None, None
    half = any(x is not None and x.dtype == np.float16 for x in case.inputs)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    model = build(case, fed)
    feeds = {f"x{i}": case.inputs[i] for i in fed}
    want = runtime(model, feeds)
    if want is None:
        return None, None
    done = run(program, folder, model, feeds, "forward")
    if done.returncode == 3 and "not supported" in done.stderr:
        return None, None
    if done.returncode:
        return done.stderr.strip() or f"exit {done.returncode}", None
    got = load(folder, "y0.out", want.shape)
    wide = np.asarray(want).astype(np.float64)
    scale = 1e-5 * (np.abs(wide).max() if case.op in ARITHMETIC and wide.size else 0)
    steps = 1.0 if case.op == "QuantizeLinear" else 0.0  # at ties of x / scale
    if half:
        good = half_close(got.astype(np.float64), wide, case)
    else:
        good = np.allclose(got, wide, rtol=2e-5, atol=2e-6 + scale + steps, equal_nan=True)
    if not good:
        return f"differs by {np.nanmax(np.abs(got - wide))}", None
    if case.op in NO_GRADIENT or half:
        return "", None
    return "", check_gradient(program, folder, case, model, feeds, want, rng)


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("TERNION_SEED") or np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}", flush=True)
    rng = np.random.default_rng(seed)
    checked, gradients, skipped, failures = {}, {}, {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            case = GENERATORS[number % len(GENERATORS)](rng, int(rng.integers(7, 26)))
            if case is None:
                continue
            if rng.integers(0, 6) == 0:
                case = halved(case)
            value, gradient = check(case, program, folder, rng)
            tally = skipped if value is None else checked
            tally[case.op] = tally.get(case.op, 0) + 1
            if gradient is not None:
                gradients[case.op] = gradients.get(case.op, 0) + 1
            if value or gradient:
                failures += 1
                shapes = [None if x is None else (x.dtype.name, x.shape) for x in case.inputs]
                print(f"{case.op} opset {case.opset} {shapes} {case.attributes}: "
                      f"{value or gradient}", flush=True)
    print(f"{sum(checked.values())} models of {len(checked)} operators, gradients of "
          f"{sum(gradients.values())} of {len(gradients)}; {failures} differ; skipped {skipped}")
    return failures > 0 or (count >= 500 and len(checked) < 35)


if __name__ == "__main__":
    sys.exit(main())
