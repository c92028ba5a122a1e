"""Every pixel that image_tool decodes, resizes and crops, against Pillow's: 0 may differ.

TERNION_DATA (optional): a folder with tiny-imagenet-200, whose JPEGs are then taken too."""
import glob
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import PIL
from PIL import Image, features

TOOL = sys.argv[1]
failures = 0
checked = 0


def tool(*args):
    done = subprocess.run([TOOL, *map(str, args)], capture_output=True)
    if done.returncode:
        return None
    head, _, body = done.stdout.partition(b"\n")
    w, h, c = map(int, head.split())
    return np.frombuffer(body, np.uint8).reshape(h, w, c)


def same(what, mine, theirs):
    global failures, checked
    if theirs is None:
        return
    checked += 1
    theirs = np.asarray(theirs)
    if mine is None or mine.shape != theirs.shape or (mine != theirs).any():
        failures += 1
        n = "no result" if mine is None else (mine != theirs).sum() if mine.shape == theirs.shape else (mine.shape, theirs.shape)
        print("differs:", what, n)


def picture(rng, w, h, channels):
    """Smooth colours with edges and noise."""
    y, x = np.mgrid[0:h, 0:w]
    a = np.zeros((h, w, channels))
    for c in range(channels):
        a[..., c] = 128 + 90 * np.sin(x / rng.uniform(3, 30) + y / rng.uniform(3, 30) + c)
    a[h // 3 : h // 2, w // 4 : w // 2] = rng.integers(0, 255, channels)
    a += rng.normal(0, 12, a.shape)
    return a.clip(0, 255).astype(np.uint8)


def resized(image, size, box=None):
    """Pillow's result, or None where versions before 13 pass in another order."""
    w, h = size
    down_first = h < image.height and image.height - h > 2 * (image.width - w)
    if down_first and int(PIL.__version__.split(".")[0]) < 13:
        return None
    return image.resize(size, Image.BILINEAR, box=box)


def generated(folder, rng):
    """Files of every kind that is read."""
    def save(name, image, **options):
        path = os.path.join(folder, name)
        image.save(path, **options)
        return path

    for i, (w, h) in enumerate([(64, 64), (61, 47), (33, 130), (1, 1), (7, 5), (300, 211)]):
        rgb = Image.fromarray(picture(rng, w, h, 3))
        grey = Image.fromarray(picture(rng, w, h, 1)[..., 0])
        for sub in (0, 1, 2):
            yield save(f"s{i}{sub}.jpg", rgb, quality=90, subsampling=sub)
            yield save(f"p{i}{sub}.jpg", rgb, quality=75, subsampling=sub, progressive=True)
        yield save(f"g{i}.jpg", grey, quality=80)
        yield save(f"c{i}.jpg", Image.fromarray(picture(rng, w, h, 4), "CMYK"), quality=85)
        yield save(f"keep{i}.jpg", rgb, quality=85, keep_rgb=True)
        yield save(f"rgb{i}.png", rgb)
        yield save(f"l{i}.png", grey)
        yield save(f"rgba{i}.png", Image.fromarray(picture(rng, w, h, 4), "RGBA"))
        yield save(f"la{i}.png", Image.fromarray(picture(rng, w, h, 2), "LA"))
        yield save(f"one{i}.png", grey.convert("1"))
        for colours in (2, 4, 13, 256):
            p = rgb.quantize(colours)
            yield save(f"pal{i}-{colours}.png", p)
            yield save(f"palt{i}-{colours}.png", p, transparency=0)
        wide = rng.integers(0, 65536, (h, w), dtype=np.uint16)
        wide[: h // 2] //= 200
        yield save(f"l16-{i}.png", Image.fromarray(wide))
    for path in raw_pngs(folder, rng):
        yield path


def raw_pngs(folder, rng):
    """PNGs that Pillow does not write: 2 and 4 bit grey, 16 bit colour and alpha, interlaced."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    w, h = 37, 21
    for colour, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        for depth in (1, 2, 4, 8, 16):
            if depth < 8 and colour != 0:
                continue
            for interlaced in (0, 1):
                def rows(rw, rh):
                    bits = rw * channels * depth
                    return b"".join(b"\0" + rng.bytes((bits + 7) // 8) for _ in range(rh))
                if interlaced:
                    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
                    body = b"".join(rows((w - x + dx - 1) // dx, (h - y + dy - 1) // dy) for x, y, dx, dy in passes)
                else:
                    body = rows(w, h)
                path = os.path.join(folder, f"raw{colour}-{depth}-{interlaced}.png")
                with open(path, "wb") as f:
                    f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced)))
                    f.write(chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b""))
                yield path


def presets(image):
    """torchvision's Resize(256) and CenterCrop(224) by Pillow alone."""
    w, h = image.size
    size = (256, int(256 * h / w)) if w <= h else (int(256 * w / h), 256)
    big = resized(image, size)
    if big is None:
        return None
    left, top = round((big.width - 224) / 2), round((big.height - 224) / 2)
    return big.crop((left, top, left + 224, top + 224))


def main():
    seed = random.randrange(1 << 31)
    print("Pillow", PIL.__version__, "libjpeg-turbo", features.version("libjpeg_turbo"), "seed", seed)
    rng = np.random.default_rng(seed)
    data = os.environ.get("TERNION_DATA", "")
    files = sorted(glob.glob(os.path.join(data, "tiny-imagenet-200/val/images/*.JPEG"))) if data else []
    files = [files[k] for k in rng.permutation(len(files))[:200]]
    print(len(files), "JPEGs of Tiny ImageNet")
    with tempfile.TemporaryDirectory() as folder:
        files += list(generated(folder, rng))
        for path in files:
            image = Image.open(path).convert("RGB")
            same(f"decode {path}", tool("decode", path), image)
            w, h = (int(v) for v in rng.integers(1, 200, 2))
            same(f"resize {path} {w} {h}", tool("resize", path, w, h), resized(image, (w, h)))
            if image.width > 8 and image.height > 4:
                t = float(rng.integers(0, image.height - 2)) / 2
                box = (1.5, t, image.width - 2.75, image.height - 1.0)
                same(f"box {path}", tool("box", path, w, h, *box), resized(image, (w, h), box))
            if min(image.size) > 4:
                same(f"imagenet {path}", tool("preset", "imagenet", path), presets(image))
    print(checked, "comparisons,", failures, "differ")
    return 1 if failures or not checked else 0


sys.exit(main())
