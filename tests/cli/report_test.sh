#!/bin/sh
# The page of a run: its figures are the journal's, and whatever the journal says it stays a page.
. "$(dirname "$0")/check.sh"

run 0 data generate glyphs g --train-images 160 --test-images 32
run 0 create resnet8 -o new.onnx
run 2 finetune new.onnx -o t.onnx --data g --report t.html
says "checkpoint"
run 0 finetune new.onnx -o t.onnx --data g --batch-size 32 -e 3 --threads 1 --checkpoint run \
    --report t.html
exists t.html
exists t.json
top1=$(value ".epochs[2].train_top1" t.json)
[ "$(value ".epochs.length" t.json)" = 3 ] || fail "t.json does not hold three epochs"
[ "$(value ".result.bytes_out" t.json)" = "$(stat -c %s t.onnx)" ] || fail "t.json: other bytes"
[ "$(value ".start.recipe.scheme" t.json)" = lsq ] || fail "t.json: no recipe"
bytes=$(stat -c %s t.onnx | sed 's/\(.*\)\(...\)$/\1,\2/')
[ "$(value ".result.quantized.classes.length" t.json)" = 10 ] || fail "t.json: no classes"
[ "$(value ".layers.length" t.json)" -gt 5 ] || fail "t.json: no layers of the files"
for text in "$bytes after" "layer3.0.conv2.weight" "Weights before" "recipe_hash" "state_hash" "<svg" \
    "$(value ".start.data_hash" t.json)"; do
    grep -q -e "$text" t.html || fail "t.html lacks $text"
done

# of a network that was trained before: what each class lost
run 0 finetune new.onnx -o f.onnx --data g --batch-size 32 -e 1 --scheme float -q
run 0 finetune f.onnx -o u.onnx --data g --batch-size 32 -e 1 --no-preflight --checkpoint "run 3" \
    --report u.html -q
grep -q "Classes, those that lost most first" u.html || fail "u.html lacks the classes"
grep -q '"event":"result".*"float":{[^}]*"classes":\[{"name":"' "run 3/run.jsonl" ||
    fail "the journal lacks the classes"

# again: only with -f; while the run goes on, with a line cut short; models: not on a page
run 2 report run -o t.html
says "exists"
printf '{"schema":1,"event":"epoch","epo' >>run/run.jsonl
run 0 report run -o t.html -f
grep -q "1 lines of the journal could not be read" t.html || fail "a cut line is not told of"
[ "$(value ".epochs.length" t.json)" = 3 ] || fail "a cut line costs an epoch"
run 2 report t.onnx run
says "is a model"
run 2 report t.onnx
says "a second one"
run 2 report run --data g
says "for models"
run 6 report nowhere -o x.html
mkdir none && echo '{"event":"epoch","epoch":1}' >none/run.jsonl
run 4 report none -o x.html
says "no fine-tuning run"
run 2 report run -o figures.json
absent x.html

# a journal from somebody else: markup, escape sequences and wrong types stay text or are left out
mkdir hostile
esc=$(printf '\033')
cat >hostile/run.jsonl <<'JSON'
{"event":"start","seed":"</title><script>alert(1)</script>","recipe_hash":"\u001b[31m\u202egnp.exe","recipe":{"<b>":"'\" onload='x","lr":[1,{"a":null}]}}
{"event":"epoch","epoch":1,"step":"ten","lr":1e300,"train_loss":"NaN","layers":[{"name":"</script><script>","flips":1e999}]}
{"event":"epoch","epoch":1,"step":0,"lr":1e300,"train_loss":3,"val_top1":-1,"layers":[{"name":"</script><script>","flips":1e300,"sparsity":0.5}]}
{"event":"epoch","epoch":2,"step":0,"lr":0.1,"train_loss":2,"layers":7}
{"event":"epoch","epoch":"3","layers":{}}
[1,2]
{"event":"rollback","step":1e14}
{"event":5}
{"event":"result","bytes_in":1e300,"bytes_out":-5,"input":"<img src=x>","quantized":{"classes":[{"name":"<b>","images":3,"correct":1e300},{"name":"<img src=x>","images":4,"correct":1},{"name":1,"images":0,"correct":0}]},"float":{"classes":[{"name":"<b>","images":3,"correct":2},{"name":"<img src=x>","images":4,"correct":3},{"images":0,"correct":0}]}}
JSON
run 0 report hostile -o h.html

grep -q "&lt;img src=x&gt;</td><td class='n'>4</td><td class='n'>3</td><td class='n'>1</td><td class='n'>-50.00" \
    h.html || fail "h.html lacks the one class that has figures"
# files that are not those of the run any more: their layers are not the run's
cp -r run moved
sed -i 's/"output":"t.onnx"/"output":"new.onnx"/' moved/run.jsonl
run 0 report moved -o moved.html
! grep -q "Weights before" moved.html || fail "moved.html: layers of another file"

# models: the first one against others, with data and without
run 0 quantize new.onnx -o q4.onnx --scheme fixed --bits 4 --granularity tensor
run 0 quantize new.onnx -o q8.onnx --scheme fixed --bits 8
run 0 report new.onnx t.onnx q4.onnx q8.onnx --data g -o models.html --json
equals .models.length 4
run 0 report new.onnx t.onnx -o bare.html
! grep -q "Classes, those" bare.html || fail "bare.html: classes without data"
[ "$(value ".comparisons[0].layers.length" bare.json)" -gt 5 ] || fail "bare.json: no layers"
run 2 report new.onnx t.onnx -o bare.html
says "exists"

# what a layer costs alone: what the network with only that layer quantized is compared to have
mkdir one
head -c 3073 g/test_batch.bin >one/pixels
cat one/pixels one/pixels >one/test_batch.bin
cp one/test_batch.bin one/data_batch_1.bin
cp g/batches.meta.txt one
run 0 quantize f.onnx -o f4.onnx --scheme fixed --bits 4
run 0 quantize f.onnx -o f4-one.onnx --scheme fixed --bits 4 --layer '.*=keep' --layer 'layer2.0.conv1.*=4'
run 0 report f.onnx f4.onnx --data one --sensitivity 8 -o alone.html
run 0 compare f.onnx f4-one.onnx --data one --json
kl=$(value ".kl")
one=$(value ".comparisons[0].layers[3].kl" alone.json)
[ "$(value ".comparisons[0].layers[3].name" alone.json)" = layer2.0.conv1 ] || fail "alone.json: layer 3"
kept=$(value ".comparisons[0].layers[0].kl" alone.json)
[ "$kept" = 0.0 ] || fail "a layer that was kept costs $kept"
awk "BEGIN { exit !($kl > 0 && ($kl - $one) ^ 2 < ($kl * 1e-3 + 1e-9) ^ 2) }" ||
    fail "the layer costs $one alone, the network with it $kl"
grep -q "Sensitivity, those that cost most" alone.html || fail "alone.html lacks the sensitivity"
run 2 report f.onnx f4.onnx --sensitivity 8 -o never.html
says "give --data"

# side by side: a run, one with another rate and fewer epochs in a folder with a space, a hostile one
run 0 finetune new.onnx -o t2.onnx --data g --batch-size 32 -e 2 --lr 0.01 --threads 1 \
    --checkpoint "run <2>" -q
run 0 report run "run <2>" hostile -o runs.html --json
equals .runs.length 3
[ "$(value ".runs[1].epochs.length" runs.json)" = 2 ] || fail "runs.json: the second run's epochs"
bytes2=$(stat -c %s t2.onnx | sed 's/\(.*\)\(...\)$/\1,\2/')
for text in "run &lt;2&gt;" "<th>lr</th><td class='n'>0.02[^<]*</td><td class='n'>0.01[^<]*</td>" \
    "<th>epochs</th><td class='n'>3.0</td><td class='n'>2.0</td>" \
    "<th>last epoch</th><td class='n'>3</td><td class='n'>2</td>" \
    "<th>bytes after</th><td class='n'>${bytes%% *}</td><td class='n'>$bytes2</td>"; do
    grep -q -e "$text" runs.html || fail "runs.html lacks $text"
done
run 0 report run "run <2>" -o two.html
grep -q "<th>lr</th>" two.html || fail "two.html: the rates do not differ"
! grep -q "<th>momentum</th>" two.html || fail "two.html: an equal option differs"
lines=$(sed -n '/Training loss/,/<\/figure>/p' runs.html | grep -c "<polyline")
[ "$lines" = 3 ] || fail "the training losses have $lines lines, expected 3"
! grep -qiE "<script|<img|<b>|nan|inf[' ,]|$esc" runs.html || fail "runs.html holds what it should not"
run 2 report run "run <2>" -o runs.html
says "exists"
run 6 report run nowhere -o none.html
absent none.html
! grep -qiE "<script|<img|<b>|nan|inf[' ,]|$esc" h.html || fail "hostile.html holds what it should not"
[ "$(grep -c '<' h.html)" -gt 20 ] || fail "the page of a hostile journal is empty"
if [ -n "${TERNION_PYTHON-}" ]; then
    "$TERNION_PYTHON" - h.html t.html u.html runs.html models.html bare.html alone.html <<'PY' || fail "a page is not well formed, or not its figures"
import html.parser, json, re, sys
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(); self.open = []
    def handle_starttag(self, tag, attrs):
        assert tag != "script" and all(not k.startswith("on") for k, v in attrs), (tag, attrs)
        assert all("nan" not in (v or "") and "inf" not in (v or "") for k, v in attrs), attrs
        if tag not in ("meta",):
            self.open.append(tag)
    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()
    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
for name in sys.argv[1:]:
    page = Page()
    page.feed(open(name).read())
    assert not page.open, page.open

def check_thresholds(h):
    """No other edge has fewer weights on its wrong side."""
    n = len(h["bins"])
    for c, threshold in enumerate(h["thresholds"]):
        wrong = [sum(sum(code["bins"][edge:]) if i <= c else sum(code["bins"][:edge])
                     for i, code in enumerate(h["codes"])) for edge in range(n + 1)]
        edge = (threshold - h["low"]) / (h["high"] - h["low"]) * n
        assert abs(edge - round(edge)) < 1e-6 and wrong[round(edge)] == min(wrong), (c, edge)

def check_histograms(text, layers):
    """Every figure that a picture names is the JSON's; its bars are the bins."""
    drawn = [l for l in layers if l["quantized"]]
    parts = text.split("<figure>")
    pictures = [p for p in parts if "relMSE" in p and "<rect" in p]
    assert len(pictures) == len(drawn), (len(pictures), len(drawn))
    for picture, layer in zip(pictures, drawn):
        h = layer["histogram"]
        codes = [(c["code"], c["count"], "%.6g" % c["level"]) for c in h["codes"]]
        found = re.findall(r"code (-?\d+): (\d+) weights become ([^<]+)<", picture)
        assert [(int(a), int(b), c) for a, b, c in found] == codes, layer["name"]
        lines = re.findall(r"threshold ([^<]+)<", picture)
        assert lines == ["%.6g" % t for t in h["thresholds"]], (lines, h["thresholds"])
        bars = h["codes"] or [h]
        assert picture.count("<rect") == sum(n > 0 for b in bars for n in b["bins"])
        for code in h["codes"]:
            assert sum(code["bins"]) == code["count"]
        if h["codes"]:
            assert [sum(c["bins"][i] for c in h["codes"]) for i in range(len(h["bins"]))] == h["bins"]
            check_thresholds(h)
        heights = [float(v) for v in re.findall(r"<rect [^>]*height='([^']+)'", picture)]
        counts = [n for b in bars for n in b["bins"] if n > 0]
        scale = max(heights) / max(counts)
        assert all(abs(a - b * scale) < 0.02 for a, b in zip(heights, counts))

def check_classes(text, before, after):
    rows = re.findall(r"<tr><td>([^<]*)</td><td class='n'>(\d+)</td><td class='n'>(\d+)</td>"
                      r"<td class='n'>(\d+)</td>", text)
    expected = sorted((a["name"], a["images"], a["correct"], b["correct"])
                      for a, b in zip(before["classes"], after["classes"]) if a["images"])
    assert sorted((n, int(i), int(a), int(b)) for n, i, a, b in rows) == expected, rows
    assert sum(r[3] for r in expected) == round(after["top1"] * after["images"])

models = json.load(open("models.json"))["comparisons"]
parts = re.split("<h1>", open("models.html").read())[2:]
assert len(parts) == len(models) == 3
for part, comparison in zip(parts, models):
    check_histograms(part, comparison["layers"])
    check_classes(part, comparison["on_a"], comparison["on_b"])
def check_graph(text, layers, edges):
    """resnet8: a chain, and past each block's first layer what joins its second."""
    chain = [(i, i + 1, False) for i in range(7)] + [(i, i + 2, True) for i in (0, 2, 4)]
    assert sorted((e["from"], e["to"], e["joins"]) for e in edges) == sorted(chain), edges
    graph = re.search(r"<svg class='graph'.*?</svg>", text, re.S).group(0)
    names = re.findall(r"bits &#160; ([^ ]+) \((Conv|Gemm)\)", graph)
    assert names == [(l["name"], l["op"]) for l in layers], names
    assert graph.count("class='kept'") == sum(not l["quantized"] for l in layers)
    assert graph.count("<path") == 3 and graph.count("<line") == 7
    colours = set(re.findall(r"--hue:(\d+)'><rect x", graph))
    assert len(colours) == len({l["bits"] for l in layers if l["quantized"]}), colours

for part, comparison in zip(parts, models):
    check_graph(part, comparison["layers"], comparison["edges"])

def check_chart(chart, models, size):
    """One point a model, to the right where it is larger, higher where it is right more often."""
    on = [models[0]["on_a"]] + [m["on_b"] for m in models]
    size = [models[0][size + "_a"]] + [m[size + "_b"] for m in models]
    points = [(float(x), float(y)) for x, y in re.findall(r"<circle cx='([^']+)' cy='([^']+)'", chart)]
    assert len(points) == len(models) + 1, points
    for key, place, sign in (size, 0, 1), ([o["top1"] for o in on], 1, -1):
        for i in range(len(points)):
            for j in range(len(points)):
                if key[i] < key[j]:
                    assert sign * (points[j][place] - points[i][place]) >= 0, (key, points)
    titles = re.findall(r"<title>([^:]+): [^,]+, top-1 ([\d.]+) %", chart)
    assert titles == [(o["model"], "%.2f" % (100 * o["top1"])) for o in on], titles

charts = re.search(r"<h2>Accuracy against size.*?<h1>", open("models.html").read(), re.S).group(0)
charts = charts.split("<figure>")[1:]
assert len(charts) == 2
check_chart(charts[0], models, "bytes")
check_chart(charts[1], models, "bits")
assert "Accuracy against size" not in open("bare.html").read()
run = json.load(open("t.json"))
check_graph(open("t.html").read(), run["layers"], run["edges"])
codes = [[len(l["histogram"]["codes"]) for l in m["layers"] if l["quantized"]] for m in models]
assert set(codes[0]) == {3} and set(codes[1]) == {16} and set(codes[2]) == {0}, codes
for name in "t", "u":
    check_histograms(open(name + ".html").read(), json.load(open(name + ".json"))["layers"])
run = json.load(open("u.json"))["result"]
check_classes(open("u.html").read(), run["float"], run["quantized"])
PY
fi
finish
