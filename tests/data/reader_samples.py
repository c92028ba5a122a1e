"""Layouts written by NumPy, pickle, tarfile, gzip and Pillow, read back by image_tool: pixels and
labels must be what was written."""
import gzip
import io
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
from PIL import Image

TOOL = sys.argv[1]
failures = 0
rng = np.random.default_rng(1)


def read(data, index):
    """Pixels, label, name, reader and description; or the error's code and text."""
    done = subprocess.run([TOOL, "read", data, str(index)], capture_output=True)
    text = done.stderr.decode()
    if done.returncode:
        return done.returncode, text
    head, _, body = done.stdout.partition(b"\n")
    w, h, c = map(int, head.split())
    label, name = re.search(r"label (-?\d+) \((.*)\) of", text).groups()
    kind = np.uint8 if len(body) == w * h * c else np.float32
    return np.frombuffer(body, kind).reshape(h, w, c), int(label), name, text


def fail(what, why):
    global failures
    failures += 1
    print("FAILED", what, why)


def expect(what, data, index, pixels, label, name=None, says=""):
    got = read(data, index)
    if len(got) == 2:
        return fail(what, got)
    a, l, n, text = got
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if a.shape != pixels.shape or (a != pixels).any():
        fail(what, f"pixels of {index}: {a.shape} {pixels.shape}")
    if l != label or (name is not None and n != name) or says not in text:
        fail(what, f"label {l} ({n}), not {label} ({name}); {text}")
    if data not in swept:
        swept.add(data)
        sweep(what, data)


swept = set()


def sweep(what, data):
    """Every allocation failing, once per kind of data set."""
    done = subprocess.run([TOOL, "sweep", data], capture_output=True)
    if done.returncode:
        fail("sweep of " + what, done.stderr.decode())


def refuse(what, data, code, *words, index=0):
    got = read(data, index)
    if len(got) != 2 or got[0] != code or not all(w in got[1] for w in words):
        fail(what, f"{code} {words} expected: {got if len(got) == 2 else got[1:]}")


def put(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    return path


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def pictures(n, *shape):
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def folders(d):
    x = pictures(8, 10, 12, 3)
    for i in range(4):
        put(f"{d}/a/train/{'cab'[i % 3]}/{'x/' if i == 3 else ''}{i}.png", png(x[i]))
        put(f"{d}/a/val/{'ab'[i % 2]}/{i}.PNG", png(x[4 + i]))
    put(f"{d}/a/val/c/readme.txt", b"no picture")
    expect("folder train", f"{d}/a", 0, x[1], 0, "a", "training part: 4 images, 3 classes")
    expect("folder train nested", f"{d}/a:train", 3, x[3], 2, "c")
    expect("folder val", f"{d}/a:val", 1, x[6], 0, "a", "validation part: 4 images")
    expect("folder bare", f"{d}/a/train", 1, x[2], 1, "b")
    for name in ("1.bmp", "x/2.WEBP", "3.txt"):
        put(f"{d}/a/val/a/{name}", b"")
    expect("folder with other formats", f"{d}/a:val", 1, x[6], 0, "a", "; 2 pictures in formats that are not read")
    put(f"{d}/a/val/zz/1.png", png(x[0]))
    refuse("folder with an unknown class", f"{d}/a:val", 4, "zz", "training part")
    for i in range(3):
        put(f"{d}/flat/val/{i}.png", png(x[i]))
        put(f"{d}/flat/train/a/{i}.png", png(x[i]))
    refuse("folder without part", f"{d}/a/train:val", 4, "validation part")
    os.makedirs(f"{d}/empty")
    refuse("empty folder", f"{d}/empty", 4, "no images")
    refuse("no folder", f"{d}/absent", 6, "absent")
    os.makedirs(f"{d}/a2/train/a"), os.makedirs(f"{d}/a2/train/b")
    put(f"{d}/a2/train/b/1.png", png(x[0]))
    refuse("empty class", f"{d}/a2", 4, "'a'", "holds no")


def tiny(d):
    x = pictures(6, 64, 64, 3)
    wnids = ["n03", "n01", "n02"]
    put(f"{d}/tiny/wnids.txt", "\n".join(wnids).encode())
    lines = ""
    for i in range(6):
        w = wnids[i % 3]
        put(f"{d}/tiny/train/{w}/images/{w}_{i}.png", png(x[i]))
        put(f"{d}/tiny/val/images/val_{i}.png", png(x[5 - i]))
        lines += f"val_{i}.png\t{w}\t0\t0\t62\t62\n"
    put(f"{d}/tiny/val/val_annotations.txt", lines.encode())
    expect("tiny train", f"{d}/tiny", 0, x[1], 0, "n01", "Tiny ImageNet, training")
    expect("tiny val", f"{d}/tiny:val", 0, x[5], 2, "n03", "Tiny ImageNet, validation part: 6 images, 3")
    expect("tiny val folder itself", f"{d}/tiny/val", 1, x[4], 0, "n01")
    os.remove(f"{d}/tiny/wnids.txt")
    put(f"{d}/tiny/train/README", b"no class")
    expect("tiny with a file beside its classes", f"{d}/tiny:val", 0, x[5], 2, "n03", "3 classes")
    put(f"{d}/tiny/val/val_annotations.txt", b"val_0.png\tn99\n")
    refuse("tiny unknown class", f"{d}/tiny:val", 4, "n99")


def lists(d):
    x = pictures(4, 9, 9, 3)
    for i in range(4):
        put(f"{d}/list/val/v{i}.png", png(x[i]))
        put(f"{d}/cs/p/v{i}.png", png(x[i]))
    put(f"{d}/list/val.txt", b"v0.png 3\nv1.png 0\nv2.png 1\nv3.png 2\n")
    expect("list of numbers", f"{d}/list:val", 0, x[0], 3, None, "val.txt: 4 images, 4 classes")
    put(f"{d}/list/val.txt", b"v0.png dog\nv1.png cat\r\n\nv2.png dog\nv3.png eel\n")
    expect("list of names", f"{d}/list:val", 0, x[0], 1, "dog")
    for name in ("README", "cat/1.png", "dog/1.png", "eel/1.png"):
        put(f"{d}/list/train/{name}", png(x[0]))
    expect("list beside class folders and a file", f"{d}/list:val", 0, x[0], 1, "dog", "3 classes")
    shutil.rmtree(f"{d}/list/train")
    put(f"{d}/list/val.txt", b"v0.png 1\nv1.png 2\nv2.png 3\nv3.png 4\n")
    refuse("list from 1", f"{d}/list:val", 4, "run from 1 to 4", "ILSVRC")
    put(f"{d}/list/val.txt", b"490\n361\n")
    refuse("numbers alone", f"{d}/list:val", 4, "ILSVRC ids")
    put(f"{d}/list/val.txt", b"v0.png -1\n")
    refuse("negative label", f"{d}/list:val", 4, "label -1")
    os.remove(f"{d}/list/val.txt")
    put(f"{d}/cs/labels.csv", b'path,label\n"p/v1.png",b\np/v0.png,a\n')
    expect("csv", f"{d}/cs", 0, x[1], 1, "b", "CSV of paths and labels: 2 images, 2 classes")
    expect("csv file", f"{d}/cs/labels.csv", 1, x[0], 0, "a")
    refuse("csv file without part", f"{d}/cs/labels.csv:val", 4, "has no parts: leave out :val")
    refuse("csv folder without part", f"{d}/cs:train", 4, "has no parts: leave out :train")
    put(f"{d}/cs/val.csv", b"p/v2.png,a\n")
    expect("csv list beside one for validation", f"{d}/cs:train", 0, x[1], 1, "b")
    expect("csv val with fewer classes", f"{d}/cs:val", 0, x[2], 0, "a", "1 images, 2 classes")
    put(f"{d}/cs/train.csv", b"p/v3.png,2\np/v2.png,0\n")
    refuse("csv val with names for numbers", f"{d}/cs:val", 4, "are names, those of", "train.csv")
    os.remove(f"{d}/cs/train.csv")
    put(f"{d}/cs/val.csv", b"p/v2.png,b\n")
    expect("csv val without the first class", f"{d}/cs:val", 0, x[2], 1, "b")
    put(f"{d}/cs/val.csv", b"p/v2.png,c\n")
    refuse("csv val with an unknown class", f"{d}/cs:val", 4, "'c'", "not among the 2")
    os.remove(f"{d}/cs/val.csv")
    put(f"{d}/cs/train.csv", b"p/v3.png,7\np/v2.png,0\n")
    expect("csv train", f"{d}/cs:train", 0, x[3], 7, "7")
    put(f"{d}/cs/train.csv", b"p/v3.png\n")
    refuse("csv of one column", f"{d}/cs:train", 4, "line 1")
    put(f"{d}/cs/train.csv", b"p/v3.png,1\n" + b"\0" * 8)
    refuse("csv with NUL", f"{d}/cs:train", 4, "no text")
    put(f"{d}/cs/train.csv", b"p/v0.png,great dane\np/v1.png,great white \np/v2.png,type 1\np/v3.png,n1 3 1 4 9 n1 2 2 5 6\n")
    for i, name in enumerate(("great dane", "great white", "type 1", "n1")):
        expect("csv of names with blanks", f"{d}/cs:train", i, x[i], (0, 1, 3, 2)[i], name)
    put(f"{d}/cs/train.csv", b"\xef\xbb\xbfImage,Label\np/v0.png,10.0\np/v1.png,2.0\n")
    expect("csv of floats behind a BOM", f"{d}/cs:train", 0, x[0], 10, "10", "2 images, 11 classes")
    put(f"{d}/cs/train.csv", b"path,label\np/v0.png,0\n\np/v1.png,unknown\n")
    refuse("csv of numbers and a name", f"{d}/cs:train", 4, "line 4", "'unknown' is a name")
    os.mkfifo(f"{d}/cs/fifo.png")
    put(f"{d}/cs/train.csv", b"fifo.png,0\n")
    refuse("csv naming a FIFO", f"{d}/cs:train", 6, "no regular file")


def idx(d):
    x, y = pictures(7, 28, 27), np.arange(7, dtype=np.uint8)

    def image_bytes(a):
        return struct.pack(">I%dI" % a.ndim, 0x800 + a.ndim, *a.shape) + a.tobytes()

    put(f"{d}/idx/train-images-idx3-ubyte", image_bytes(x))
    put(f"{d}/idx/train-labels-idx1-ubyte", image_bytes(y))
    put(f"{d}/idx/t10k-images-idx3-ubyte.gz", gzip.compress(image_bytes(x[::-1])))
    put(f"{d}/idx/t10k-labels-idx1-ubyte.gz", gzip.compress(image_bytes(y[::-1])))
    expect("idx", f"{d}/idx", 6, x[6], 6, None, "training part: 7 images of 27x28, 10 classes")
    expect("idx gz", f"{d}/idx:val", 0, x[6], 6, None, "validation")
    put(f"{d}/idx/train-images-idx3-ubyte", image_bytes(x)[:-1])
    refuse("idx cut off", f"{d}/idx", 4, "promises")
    put(f"{d}/idx/train-images-idx3-ubyte", struct.pack(">4I", 0x803, 1 << 31, 1 << 31, 1 << 31) + b"1234")
    refuse("idx overflow", f"{d}/idx", 4, "promises")
    put(f"{d}/idx/t10k-images-idx3-ubyte.gz", gzip.compress(struct.pack(">4I", 0x803, 1 << 20, 28, 28)))
    refuse("idx gz bomb", f"{d}/idx:val", 4, "promises")
    put(f"{d}/idx/t10k-images-idx3-ubyte.gz", gzip.compress(image_bytes(x) + b"x"))
    refuse("idx gz too long", f"{d}/idx:val", 4, "more than")
    put(f"{d}/idx/t10k-images-idx3-ubyte.gz", gzip.compress(image_bytes(x))[:-9])
    refuse("idx gz cut off", f"{d}/idx:val", 4)


def numpy_pairs(d):
    x, y = pictures(5, 6, 7, 3), np.array([4, 0, 1, 2, 3])
    os.makedirs(f"{d}/np")
    np.savez(f"{d}/a.npz", x_train=x, y_train=y, x_test=x[::-1], y_test=y[::-1].astype(np.uint8))
    np.savez_compressed(f"{d}/b.npz", images=x.transpose(0, 3, 1, 2), labels=y[:, None])
    expect("npz", f"{d}/a.npz", 1, x[1], 0, None, "training part: 5 images of 7x6x3, 5 classes")
    expect("npz val", f"{d}/a.npz:val", 0, x[4], 3, None, "validation part")
    expect("npz packed NCHW", f"{d}/b.npz", 2, x[2], 1, None, "one part")
    refuse("npz without part", f"{d}/b.npz:val", 4, "validation part")
    np.savez(f"{d}/three.npz", x_train=x, y_train=y, x_test=x, y_test=y, X_val=x[::-1], y_val=y[::-1])
    expect("npz of three parts", f"{d}/three.npz:val", 0, x[4], 3, None, "X_val and y_val")
    f = rng.standard_normal((5, 2, 6, 7)).astype(np.float32)
    np.save(f"{d}/np/images.npy", f[:, :1])
    np.save(f"{d}/np/labels.npy", y.astype(np.int16))
    expect("npy floats", f"{d}/np", 3, f[3, 0], 2, None, "1 floats")
    np.save(f"{d}/np/images.npy", f.astype(np.float64).transpose(0, 2, 3, 1))
    expect("npy doubles of two channels", f"{d}/np", 3, f[3].transpose(1, 2, 0), 2)
    for kind in np.float32, np.float64, np.float16:
        np.save(f"{d}/alone.npy", f.astype(kind))
        expect("npy of inputs", f"{d}/alone.npy", 3, f.astype(kind)[3].astype(np.float32).transpose(1, 2, 0), -1,
               None, "inputs[3]")
        swept.discard(f"{d}/alone.npy")
    refuse("npy of inputs, part", f"{d}/alone.npy:train", 4, "no parts")
    np.save(f"{d}/alone.npy", f[0])
    refuse("npy of floats, rank 3", f"{d}/alone.npy", 4, "rank 3")
    np.save(f"{d}/alone.npy", x)
    expect("npy of bytes", f"{d}/alone.npy", 2, x[2], -1, None, "of images, unlabelled")
    np.save(f"{d}/np/images.npy", x[..., 0])
    expect("npy grey", f"{d}/np", 4, x[4][..., 0], 3)
    np.save(f"{d}/np/images.npy", np.asfortranarray(x))
    refuse("npy Fortran", f"{d}/np", 4, "Fortran")
    np.save(f"{d}/np/images.npy", x.astype(">f4"))
    refuse("npy big-endian", f"{d}/np", 4, "type")
    np.save(f"{d}/np/images.npy", np.array([[["a"]]], dtype=object), allow_pickle=True)
    refuse("npy of objects", f"{d}/np", 4, "objects")
    np.save(f"{d}/np/images.npy", x[:4])
    refuse("npy of other length", f"{d}/np", 4, "4 integers")
    np.save(f"{d}/np/images.npy", x)
    np.save(f"{d}/np/labels.npy", y - 1)
    refuse("npy of negative labels", f"{d}/np", 4, "label -1")
    np.save(f"{d}/np/labels.npy", y.astype(np.float32))
    refuse("npy of float labels", f"{d}/np", 4, "FLOAT")
    head = b"\x93NUMPY\x01\x00"
    claims = b"{'descr': '|u1', 'fortran_order': False, 'shape': (34359738368, 1, 1), }\n"
    put(f"{d}/np/images.npy", head + struct.pack("<H", len(claims)) + claims)
    refuse("npy claiming 32 GiB", f"{d}/np", 4, "promises")
    claims = claims.replace(b"34359738368, 1", b"9223372036854775807, 9223372036854775807")
    put(f"{d}/np/images.npy", head + struct.pack("<H", len(claims)) + claims)
    refuse("npy overflow", f"{d}/np", 4, "promises")
    put(f"{d}/np/images.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + claims)
    refuse("npy header of 1 GiB", f"{d}/np", 4, "header of")
    put(f"{d}/np/images.npy", head + struct.pack("<H", 20) + b"{'descr': '|u1'")
    refuse("npy cut off", f"{d}/np", 4)
    bomb = head + struct.pack("<H", 118) + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1024, 1024, 64), }".ljust(117) + b"\n"
    with zipfile.ZipFile(f"{d}/bomb.npz", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("images.npy", bomb + bytes(1 << 26))
        z.writestr("labels.npy", b"")
    data = bytearray(open(f"{d}/bomb.npz", "rb").read())
    at = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    data[at + 24 : at + 28] = struct.pack("<I", 0xF0000000)  # claims far more than deflate can
    put(f"{d}/bomb.npz", data)
    refuse("npz ratio bomb", f"{d}/bomb.npz", 4, "cannot be")
    whole = open(f"{d}/b.npz", "rb").read()
    put(f"{d}/c.npz", whole[:-30])
    refuse("npz cut off", f"{d}/c.npz", 4, "zip")
    put(f"{d}/c.npz", whole[:200] + b"\xff" * 40 + whole[240:])
    refuse("npz corrupt", f"{d}/c.npz", 4)


def cifar(d):
    x, y = pictures(6, 3, 32, 32), [3, 9, 0, 1, 2, 5]

    def batch(a, labels, key="labels"):
        # as Python 2 pickled them: byte strings, protocol 2
        out = io.BytesIO()
        out.write(b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03")
        out.write(b"U" + bytes([len(key)]) + key.encode() + b"q\x04]q\x05(" + b"".join(b"K" + bytes([v]) for v in labels) + b"e")
        raw = a.tobytes()
        out.write(b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01")
        out.write(b"K" + bytes([len(a)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
        out.write(b"T" + struct.pack("<I", len(raw)) + raw + b"tbU\tfilenamesq\x0c]q\r(U\x05a.pnge" + b"u.")
        return out.getvalue()

    check = pickle.loads(batch(x, y), encoding="bytes")
    assert (check[b"data"].reshape(x.shape) == x).all() and check[b"labels"] == y
    hwc = x.transpose(0, 2, 3, 1)
    put(f"{d}/py/data_batch_1", batch(x[:4], y[:4]))
    put(f"{d}/py/data_batch_2", batch(x[4:], y[4:]))
    put(f"{d}/py/test_batch", batch(x[::-1], y[::-1]))
    expect("cifar python", f"{d}/py", 5, hwc[5], 5, None, "CIFAR-10 python, training part: 6 images")
    expect("cifar python test", f"{d}/py:val", 1, hwc[4], 2)
    put(f"{d}/py100/train", batch(x, [99, 1, 2, 3, 4, 5], "fine_labels"))
    put(f"{d}/py100/meta", b"")
    expect("cifar-100 python", f"{d}/py100", 0, hwc[0], 99, None, "CIFAR-100 python")
    for protocol in (3, 4):
        p = pickle.dumps({"labels": y, "data": x.reshape(6, -1)}, protocol)
        put(f"{d}/py/test_batch", p)
        got = read(f"{d}/py:val", 0)
        print("  pickle protocol", protocol, "accepted" if len(got) > 2 else got[1].strip())
    put(f"{d}/py/test_batch", pickle.dumps(os.system, 2))
    refuse("pickle of a function", f"{d}/py:val", 4, "never loaded")
    put(f"{d}/py/test_batch", batch(x, y).replace(b"numpy\nndarray", b"posix\nsystem "))
    refuse("pickle naming posix.system", f"{d}/py:val", 4, "never loaded")
    put(f"{d}/py/test_batch", batch(x, y)[:-50])
    refuse("pickle cut off", f"{d}/py:val", 4)
    put(f"{d}/py/test_batch", batch(x, y[:-1]))
    refuse("pickle with a label too few", f"{d}/py:val", 4, "5 labels")
    put(f"{d}/py/test_batch", batch(x, y[:-1] + [10]))
    refuse("pickle with a label too high", f"{d}/py:val", 4, "label 10", "10 classes")
    records = b"".join(bytes([v]) + a.tobytes() for v, a in zip(y, x))
    put(f"{d}/bin/data_batch_1.bin", records)
    put(f"{d}/bin/batches.meta.txt", b"".join(b"c%d\n" % i for i in range(10)))
    expect("cifar binary", f"{d}/bin", 1, hwc[1], 9, "c9")
    expect("cifar binary, the other part", f"{d}/bin", 0, hwc[0], 3, "c3")
    refuse("cifar binary without part", f"{d}/bin:val", 4, "validation part")
    put(f"{d}/bin/test_batch.bin", records[:-1])
    refuse("cifar binary cut off", f"{d}/bin:val", 4, "multiple")
    put(f"{d}/bin/test_batch.bin", b"\xff" + records[1:])
    refuse("cifar binary label 255", f"{d}/bin:val", 4, "label 255")
    put(f"{d}/bin100/train.bin", b"".join(b"\7" + bytes([v]) + a.tobytes() for v, a in zip(y, x)))
    expect("cifar-100 binary", f"{d}/bin100", 2, hwc[2], 0, None, "CIFAR-100 binary")


def tars(d):
    x = pictures(6, 8, 9, 3)

    def shard(path, ids, form, extra=False):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tarfile.open(path, "w", format=form) as t:
            for i in ids:
                stem = ("deep/" * 30 if extra else "") + f"s{i}"
                for name, body in ((stem + ".png", png(x[i])), (stem + ".cls", b"%d\n" % (i % 4)), (stem + ".json", b"{}")):
                    info = tarfile.TarInfo(name)
                    info.size = len(body)
                    t.addfile(info, io.BytesIO(body))
            if extra:
                for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
                    info = tarfile.TarInfo("x.png")
                    info.type, info.linkname = kind, "/etc/passwd"
                    t.addfile(info)

    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard(f"{d}/wds{form}/train-0.tar", [0, 1, 2], form)
        shard(f"{d}/wds{form}/train-1.tar", [3, 4], form, form != tarfile.USTAR_FORMAT)
        shard(f"{d}/wds{form}/val-0.tar", [5], form)
        expect(f"tar {form}", f"{d}/wds{form}", 4, x[4], 0, None, "2 tar files: 5 images, 4 classes")
        expect(f"tar {form} val", f"{d}/wds{form}:val", 0, x[5], 1)
        expect(f"tar {form} file", f"{d}/wds{form}/train-0.tar", 2, x[2], 2)
    expect("tar with links", f"{d}/wds{tarfile.GNU_FORMAT}", 3, x[3], 3, None, "4 links, devices")
    with tarfile.open(f"{d}/masks.tar", "w") as t:
        for name, body in (("0.jpg", png(x[0])), ("0.seg.png", png(x[1])), ("0.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            t.addfile(info, io.BytesIO(body))
    expect("tar with masks", f"{d}/masks.tar", 0, x[0], 1)
    with tarfile.open(f"{d}/twice.tar", "w") as t:
        for name in ("0.png", "0.jpg"):
            t.addfile(tarfile.TarInfo(name))
    refuse("tar with two pictures of a key", f"{d}/twice.tar", 4, "'0.jpg' is a second picture")
    with tarfile.open(f"{d}/dots.tar", "w") as t:
        t.addfile(tarfile.TarInfo("0.a.png"))
    refuse("tar with dots in all names", f"{d}/dots.tar", 4, "first dot", "'0.a.png'")
    refuse("tar without part", f"{d}/wds0/train-0.tar:train", 4, "has no parts")
    shard(f"{d}/both/trainval.tar", [0, 1], tarfile.USTAR_FORMAT)
    refuse("tar for training alone", f"{d}/both:val", 4, "no validation part")
    whole = open(f"{d}/wds0/train-0.tar", "rb").read()
    put(f"{d}/cut.tar", whole[:1500])
    refuse("tar cut off", f"{d}/cut.tar", 4)
    put(f"{d}/cut.tar", whole[:513] + b"x" * 20 + whole[533:])
    refuse("tar with a corrupt picture", f"{d}/cut.tar", 4, "s0", "PNG")
    put(f"{d}/cut.tar", whole[:1024 + 124] + b"77777777777\0" + whole[1024 + 136:])
    refuse("tar with a broken header", f"{d}/cut.tar", 4)


def corrupt(d):
    x = pictures(3, 40, 40, 3)
    out = io.BytesIO()
    Image.fromarray(x[0]).save(out, "jpeg")
    whole = out.getvalue()
    put(f"{d}/bad/a/0.jpg", whole[: len(whole) // 2])
    put(f"{d}/bad/a/1.png", png(x[1])[:-40])
    put(f"{d}/bad/a/2.png", b"")
    put(f"{d}/bad/a/3.png", b"GIF89a....")
    put(f"{d}/bad/a/4.png", png(x[2])[:60] + b"\0\0\0" + png(x[2])[63:])
    for i in range(5):
        refuse(f"corrupt picture {i}", f"{d}/bad", 4, f"{i}.", index=i)


with tempfile.TemporaryDirectory() as folder:
    for part in (folders, tiny, lists, idx, numpy_pairs, cifar, tars, corrupt):
        before = failures
        os.makedirs(f"{folder}/{part.__name__}")
        part(f"{folder}/{part.__name__}")
        print(part.__name__, "ok" if failures == before else "FAILED")
sys.exit(1 if failures else 0)
