#!/usr/bin/env python3
"""Time and memory of `ternion quantize` side by side with the floor and with Python tools.

    tests/bench/convert.py [--build build] [--repeat 5] [--python PYTHON] [--onnxsim ONNXSIM]
                           [--folder DIR] [--models resnet50,vgg16]

Models come from `ternion create` and lie in the page cache. Commands are interleaved, one of each a
round; figures are medians. The floor reads all bytes of the model and writes as many as ternion's
output has with one fsync; `copy` writes all of them. PYTHON has onnxruntime (quantize_dynamic, int8 per
channel). ONNXSIM is the program of the onnxsim package. Python tools run once a benchmark, in the
same run; their time is the whole process with its imports, and (onnxruntime) the call alone.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

DYNAMIC = """
import sys, time
from onnxruntime.quantization import quantize_dynamic, QuantType
start = time.perf_counter()
quantize_dynamic(sys.argv[1], sys.argv[2], per_channel=True, weight_type=QuantType.QInt8)
print(time.perf_counter() - start)
"""


class Run:
    """One command: wall and processor seconds, peak of anonymous and of all resident MB."""

    def __init__(self, command):
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.anonymous = 0.0
        watcher = threading.Thread(target=self.watch, args=(process.pid,))
        watcher.start()
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.wall = time.perf_counter() - start
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        self.resident = usage.ru_maxrss / 1e3
        self.out = out.decode()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {err.decode()[-500:]}")

    def watch(self, pid):
        try:
            while True:
                with open(f"/proc/{pid}/status") as status:
                    for line in status:
                        if line.startswith("RssAnon"):
                            self.anonymous = max(self.anonymous, int(line.split()[1]) / 1e3)
                time.sleep(0.002)
        except (OSError, ValueError):
            return


def median(runs, key):
    return statistics.median(getattr(run, key) for run in runs)


def show(name, runs, floor):
    wall, cpu = median(runs, "wall"), median(runs, "cpu")
    print(f"{name:34} {wall * 1e3:9.0f} {cpu * 1e3:9.0f} {wall / floor:8.2f} "
          f"{median(runs, 'anonymous'):9.0f} {median(runs, 'resident'):9.0f}")


def quantization_alone(args, model):
    print("quantization alone (2 first columns ms: wall, processor; MB: peak heap)")
    for scheme, threshold, granularity, bits in (
            ("", "mean:0.7", "", ""), ("", "optimal", "", ""), ("ttq", "optimal", "", ""),
            ("", "mean:0.7", "tensor", ""), ("", "optimal", "tensor", ""),
            ("fixed", "", "", "4"), ("fixed", "", "", "8"), ("affine", "", "", "8")):
        line = subprocess.run([os.path.join(args.build, "tests/bench/conversion_time"), model,
                               scheme, threshold, granularity, bits, "3"],
                              env=dict(os.environ, OMP_WAIT_POLICY="passive"),
                              check=True, capture_output=True, text=True).stdout.split()
        name = " ".join(x for x in (scheme or "twn", threshold, granularity, bits) if x)
        per_weight = float(line[2]) / float(line[1])
        print(f"  {name:32} {line[0]:>9} {line[2]:>9}   {per_weight:6.2f} ns a weight {line[3]:>9}")


def compare(args, name, folder):
    ternion = os.path.join(args.build, "cli/ternion")
    model, out = os.path.join(folder, name + ".onnx"), os.path.join(folder, "out.onnx")
    subprocess.run([ternion, "create", name, "-o", model, "-f"], check=True, capture_output=True)
    quantize = [ternion, "quantize", model, "-o", out, "-f", "-q", "--threshold"]
    Run(quantize + ["mean:0.7"])
    bytes_in, bytes_out = os.path.getsize(model), os.path.getsize(out)
    floor = [os.path.join(args.build, "tests/bench/floor"), model, out]
    commands = {"floor": floor + [str(bytes_out)], "copy": floor + ["0"],
                "ternion mean:0.7": quantize + ["mean:0.7"],
                "ternion optimal": quantize + ["optimal"]}
    runs = {key: [] for key in commands}
    for _ in range(args.repeat):
        for key, command in commands.items():
            runs[key].append(Run(command))
    if args.python:
        runs["onnxruntime quantize_dynamic int8"] = [Run([args.python, "-c", DYNAMIC, model, out])]
    if args.onnxsim:
        for option in ("--ternary-quantize", "--weight-only-quantize"):
            try:
                runs["onnxsim " + option] = [Run([args.onnxsim, model, out, option])]
            except RuntimeError as error:
                print(f"onnxsim {option} failed: {str(error)[-200:]!r}")
    print(f"\n{name}: {bytes_in:,} bytes in, {bytes_out:,} out, {args.repeat} rounds, "
          f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'':34} {'wall ms':>9} {'cpu ms':>9} {'x floor':>8} {'anon MB':>9} {'all MB':>9}")
    for key, some in runs.items():
        show(key, some, median(runs["floor"], "wall"))
    if args.python:
        call = runs["onnxruntime quantize_dynamic int8"][0].out.split()[-1]
        print(f"{'  its call alone':34} {float(call) * 1e3:9.0f}")
    quantization_alone(args, model)
    os.remove(model)
    os.remove(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--python", default=os.environ.get("TERNION_PYTHON"))
    parser.add_argument("--onnxsim", default=shutil.which("onnxsim"))
    parser.add_argument("--folder", default=None)
    parser.add_argument("--models", default="resnet50,vgg16")
    args = parser.parse_args()
    subprocess.run(["ninja", "-C", args.build, "cli/ternion", "tests/bench/floor",
                    "tests/bench/conversion_time"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in args.models.split(","):
            compare(args, name, folder)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
