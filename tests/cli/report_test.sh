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
for text in "$bytes after" "layer3.0.conv2.weight" "recipe_hash" "state_hash" "<svg" \
    "$(value ".start.data_hash" t.json)"; do
    grep -q -e "$text" t.html || fail "t.html lacks $text"
done

# again: only with -f; while the run goes on, with a line cut short; models: not on a page
run 2 report run -o t.html
says "exists"
printf '{"schema":1,"event":"epoch","epo' >>run/run.jsonl
run 0 report run -o t.html -f
grep -q "1 lines of the journal could not be read" t.html || fail "a cut line is not told of"
[ "$(value ".epochs.length" t.json)" = 3 ] || fail "a cut line costs an epoch"
run 2 report t.onnx new.onnx
says "is a model"
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
{"event":"result","bytes_in":1e300,"bytes_out":-5,"input":"<img src=x>","quantized":[]}
JSON
run 0 report hostile -o h.html

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
    "$TERNION_PYTHON" - h.html t.html runs.html <<'PY' || fail "a page is not well formed"
import html.parser, sys
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(); self.open = []
    def handle_starttag(self, tag, attrs):
        assert tag != "script" and all(not k.startswith("on") for k, v in attrs), (tag, attrs)
        assert all("nan" not in (v or "") for k, v in attrs), attrs
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
PY
fi
finish
