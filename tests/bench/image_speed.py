"""Images per second of processor time: the loader, torchvision's pipeline (one process), libjpeg-turbo alone. One
thread each, interleaved, the best of three.

    image_speed.py IMAGE_SPEED [TINY_IMAGENET]"""
import glob
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, transforms

torch.set_num_threads(1)
tool, tiny = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""


def torchvision_speed(folder, steps):
    norm = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    data = datasets.ImageFolder(folder, transforms.Compose([*steps, transforms.ToTensor(), norm]))
    loader = torch.utils.data.DataLoader(data, 64)
    begin = time.process_time()
    n = sum(len(y) for _, y in loader)
    return n / (time.process_time() - begin)


def compare(name, folder, preset, side, steps):
    files = glob.glob(folder + "/*/*.jpg")
    best = {}
    for _ in range(3):
        out = subprocess.run([tool, folder, preset, str(side), "1", *files], check=True, capture_output=True, text=True).stdout
        now = dict((k, float(v)) for k, v in (line.split() for line in out.splitlines()))
        now["torchvision"] = torchvision_speed(folder, steps)
        best = {k: max(v, best.get(k, 0)) for k, v in now.items()}
    print(name, "  ".join(f"{k} {v:.0f}" for k, v in best.items()), f"  loader / torchvision {best['loader'] / best['torchvision']:.2f}")


with tempfile.TemporaryDirectory() as d:
    rng = np.random.default_rng(0)
    sources = sorted(glob.glob(tiny + "/val/images/*.JPEG"))[:600]
    for kind, size, n in (("photo", (500, 375), 200), ("small", (64, 64), 600)):
        os.makedirs(f"{d}/{kind}/a")
        for i in range(n):
            image = Image.open(sources[i]).convert("RGB") if sources else Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
            image.resize(size, Image.BICUBIC).save(f"{d}/{kind}/a/{i}.jpg", quality=90)
    compare("500x375, resize 256, crop 224:", f"{d}/photo", "imagenet", 224, [transforms.Resize(256), transforms.CenterCrop(224)])
    compare("64x64, crop 56:", f"{d}/small", "tiny-imagenet", 56, [transforms.CenterCrop(56)])
