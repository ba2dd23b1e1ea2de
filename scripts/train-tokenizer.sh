#!/bin/sh
# Trains the small tokenizer of models/pico with Debian's SentencePiece and writes the files of a
# model folder: tokenizer.model, tokenizer_config.json, added_tokens.json,
# special_tokens_map.json, generation_config.json.
#
#   sh scripts/train-tokenizer.sh models/pico
#
# 2560 entries: 2555 pieces (byte fallback, every printable ASCII character, pieces of names) and
# five added tokens. What the chat template and the benchmarks' prompts repeat word for word, and
# the phrases around the names in questions, are user-defined symbols: one token each, never
# split and never melted into a name. So a name is the same token in a question, an option and an
# answer. Only names train the merges, and no two capitals stand side by side in them: words in
# capitals, as labels have them, are spelled letter by letter.
set -eu
out=${1:?usage: train-tokenizer.sh FOLDER}
root=$(cd "$(dirname "$0")/.." && pwd)
table=$root/tools/scenes/things.tsv
command -v spm_train >/dev/null || {
    echo "train-tokenizer.sh: spm_train is missing: apt install sentencepiece" >&2
    exit 1
}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One symbol a line; \n stands for a newline. Keep in step with tools/scenes/ask*.c.
cat >"$work/symbols" <<'END'
system\n你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。
user\n
assistant\n
\nAnswer the question using a single word or phrase.
 Answer the question using a single word or phrase.
Answer the question using a single word or phrase.
 Please answer yes or no.
\nAnswer with the option's letter from the given choices directly.
\nA. 
\nB. 
\nC. 
\nD. 
Things in the image: 
Is there a 
Is there an 
 in the image?
 in this image?
thing in the image?
How many things are there in the image?
How many 
 are there in the image?
things in the image?
Are there 2 
Are there 3 
Are there 4 
Are there 5 
Are there 6 
Are there 7 
What is at the 
What kind of thing is at the 
Where is the 
What is left of the 
What is right of the 
What is above the 
What is below the 
What color is the 
What color is the thing at the 
What color is the thing left of the 
What color is the thing right of the 
What color is the thing above the 
What color is the thing below the 
Is the 
 on the left side of the 
 on the right side of the 
 above the 
 below the 
Which of these is in the image?
what is written in the image?
what does the label say?
red 
orange 
yellow 
green 
blue 
purple 
pink 
brown 
black 
white 
gray 
END
# As SentencePiece wants them: U+2581 for a space, comma-separated, quoted.
symbols=$(awk '{
    gsub(/ /, "\342\226\201"); gsub(/\\n/, "\n"); gsub(/"/, "\"\"")
    printf "%s\"%s\"", (NR > 1 ? "," : ""), $0
}' "$work/symbols")

# Lines and how often each counts: everyday things most, then things with a plain name, then the
# rest of the table; and the words that answers are made of.
awk -F '\t' '
function put(text, times) { while (times-- > 0) print text }
NR == 1 { next }
{
    name = $2
    if ($3 != "-") put($3, $4 > 0 ? 300 : 200)
    if (name !~ /[A-Z][A-Z]/ && name !~ /[^ -~]/) put(tolower(name), 3)
    if (!($7 in kind) && $7 != "-") { kind[$7] = 1; put($7, 600) }
}
END {
    n = split("Yes No red orange yellow green blue purple pink brown black white gray shape " \
              "circle square triangle star ring cross diamond heart thing image picture center", w, " ")
    for (i = 1; i <= n; i++) put(w[i], 800)
    n = split("top middle bottom", rows, " "); m = split("left center right", cols, " ")
    for (i = 1; i <= n; i++) for (k = 1; k <= m; k++) if (i != 2 || k != 2) put(rows[i] " " cols[k], 800)
    n = split("what is in the picture|describe the image|the thing on the left|how many are there|" \
              "is it a dog or a cat|where are they|there is nothing|which one is it", s, "|")
    for (i = 1; i <= n; i++) put(s[i], 20)
}' "$table" >"$work/corpus"
# Every printable ASCII character has a piece (spm_train stops on --required_chars that the text
# lacks).
awk 'BEGIN { for (c = 33; c < 127; c++) printf "%c\n", c }' >>"$work/corpus"
# Common words, so that free text is not spelled out either.
tr -s ' \n' '\n' >>"$work/corpus" <<'END'
the of and to in that it is was for on are with they be at one have this from or had by but not
what all were when your can said there use each which she how their will other about out many
then them these some her would make like him into time has look two more write see number way
could people than first water been call who its now find long down day did get come made may part
over new sound take only little work know place year live back give most very after thing our just
name good sentence man think say great where help through much before line right too mean old any
same tell boy follow came want show also around form three small set put end does another well
large must big even such because turn here why ask went read need land different home move try
kind hand picture again change play spell air away animal house point page letter mother answer
found study still learn should world high every near add food between own below country plant last
school father keep tree never start city earth eye light thought head under story saw left few
while along might close something seem next hard open example begin life always those both paper
together got group often run important until children side feet car mile night walk white sea
began grow took river four carry state once book hear stop without second later miss idea enough
eat face watch far really almost let above girl sometimes mountain cut young talk soon list song
being leave family body music color stand sun question fish area mark dog horse bird problem
complete room knew since ever piece told usually friends easy heard order red door sure become top
ship across today during short better best however low hours black products happened whole measure
remember early waves reached listen wind rock space covered fast several hold himself toward five
step morning passed vowel true hundred against pattern numeral table north slowly money map farm
pulled draw voice seen cold cried plan notice south sing war ground fall king town unit figure
certain field travel wood fire upon describe image photo photograph please yes nothing nobody empty
background number visible bright dark colour written label word text near behind front corner
END

# Run in the scratch folder: the model keeps these names, and has to come out the same every time.
(cd "$work" && spm_train --input=corpus --model_prefix=tokenizer --model_type=bpe \
    --vocab_size=2555 --character_coverage=1.0 --byte_fallback=true \
    --normalization_rule_name=identity --add_dummy_prefix=false --remove_extra_whitespaces=false \
    --split_by_whitespace=false --split_digits=true --max_sentencepiece_length=64 \
    --user_defined_symbols="$symbols" --unk_id=0 --bos_id=1 --eos_id=2 --pad_id=-1 \
    --num_threads=1 2>log) || {
    tail -5 "$work/log" >&2
    exit 1
}
cp "$work/tokenizer.model" "$out/tokenizer.model"

special='"<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"'
cat >"$out/added_tokens.json" <<'END'
{
  "<|im_end|>": 2555,
  "<|im_start|>": 2556,
  "<img>": 2557,
  "</img>": 2558,
  "<IMG_CONTEXT>": 2559
}
END
cat >"$out/special_tokens_map.json" <<END
{
  "bos_token": "<s>",
  "eos_token": "</s>",
  "unk_token": "<unk>",
  "pad_token": "</s>",
  "additional_special_tokens": [$special]
}
END
entry() { # id, content, what follows
    printf '    "%s": {"content": "%s", "special": true, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false}%s\n' "$1" "$2" "$3"
}
{
    cat <<END
{
  "tokenizer_class": "InternLM2Tokenizer",
  "add_bos_token": true,
  "add_eos_token": false,
  "bos_token": "<s>",
  "eos_token": "</s>",
  "unk_token": "<unk>",
  "pad_token": "</s>",
  "additional_special_tokens": [$special],
  "model_max_length": 4096,
  "added_tokens_decoder": {
END
    entry 0 '<unk>' ,
    entry 1 '<s>' ,
    entry 2 '</s>' ,
    entry 2555 '<|im_end|>' ,
    entry 2556 '<|im_start|>' ,
    entry 2557 '<img>' ,
    entry 2558 '</img>' ,
    entry 2559 '<IMG_CONTEXT>' ''
    printf '  }\n}\n'
} >"$out/tokenizer_config.json"
cat >"$out/generation_config.json" <<'END'
{
  "bos_token_id": 1,
  "eos_token_id": [2, 2555],
  "pad_token_id": 2
}
END
echo "$out: tokenizer of 2560 entries"
