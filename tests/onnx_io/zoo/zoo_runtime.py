"""Every architecture that `ternion create` writes passes onnx.checker and runs in ONNX Runtime, at
sizes and class counts of its own and others, with any batch.  usage: zoo_runtime.py TERNION"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
except ImportError:
    sys.exit(77)

ROWS = [  # architecture, --input, --classes
    ("alexnet", "3x64x64", 7), ("alexnet", "3x224x200", 3), ("vgg16", "3x32x32", 5),
    ("vgg16-bn", "1x33x47", 4), ("resnet18", "3x64x64", 11), ("resnet18b", "3x32x32", 3),
    ("resnet34", "3x40x40", 6), ("resnet50", "3x65x33", 9), ("resnet8", "1x28x28", 10),
    ("resnet20", None, None), ("resnet32", "3x31x33", 100), ("resnet44", None, None),
    ("resnet56", None, None), ("resnet110", "4x16x16", 2), ("densenet121", None, None),
    ("densenet121", "3x112x112", 10), ("densenet-small", None, None),
    ("squeezenet1.1", "3x96x80", 8), ("squeezenet-bn", None, None),
]


def main():
    ternion = os.path.realpath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        for architecture, shape, classes in ROWS:
            command = [ternion, "create", architecture, "-o", path, "-f", "-q"]
            if shape:
                command += ["--input", shape, "--classes", str(classes)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            onnx.checker.check_model(path, full_check=True)
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            wanted = session.get_inputs()[0].shape[1:]
            if shape:
                assert wanted == [int(n) for n in shape.split("x")], (architecture, wanted)
            random = np.random.default_rng(1)
            x = random.standard_normal([3] + wanted).astype(np.float32)
            y = session.run(["logits"], {"input": x})[0]
            assert y.shape[0] == 3 and (classes is None or y.shape[1] == classes), y.shape
            assert np.isfinite(y).all() and y.std() > 0, architecture
            # the signal does not vanish (each residual block doubles its variance: it may grow)
            assert 1e-2 < np.abs(y).max() < 1e12, (architecture, np.abs(y).max())
            one = session.run(["logits"], {"input": x[:1]})[0]
            assert np.abs(one - y[:1]).max() <= 1e-4 * np.abs(y).max(), architecture
            print(architecture, wanted, y.shape[1], "largest logit", np.abs(y).max())


main()
