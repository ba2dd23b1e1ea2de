#!/usr/bin/env bash
# Makes a large table and predictions for measuring: big.sh mcq|textvqa|mme ROWS FOLDER
set -euo pipefail
kind=$1 rows=$2 folder=$3
mkdir -p "$folder"
awk -v n="$rows" -v kind="$kind" -v table="$folder/$kind.tsv" -v said="$folder/$kind.jsonl" '
function one(list, count) { return list[1 + int(rand() * count)] }
BEGIN {
    srand(1)
    for (i = 0; i < 100; i++) picture = picture "A"
    n_words = split("red car|blue car|dog|cat|green tree|two|None", word, "|")
    n_brands = split("nike|Nike.|adidas|the swoosh|it is", brand, "|")
    n_yes = split("Yes|No|no.|maybe", yes, "|")
    if (kind == "mcq") head = "question\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit"
    if (kind == "textvqa") head = "question\tanswer"
    if (kind == "mme") head = "question\tanswer\tcategory\timage_path"
    print "index\timage\t" head >table
    for (i = 0; i < n; i++) {
        row = i "\t" picture "\tWhat is shown in picture " i "?\t"
        if (kind == "mcq") {
            k = int(rand() * n_words)
            for (c = 0; c < 4; c++) option[c] = word[1 + (k + c) % n_words]
            row = row "\t" option[0] "\t" option[1] "\t" option[2] "\t" option[3] "\t" \
                substr("ABCD", 1 + i % 4, 1) "\tc" i % 9 "\tl" i % 3 "\tdev"
            r = rand()
            answer = r < .4 ? substr("ABCD", 1 + int(rand() * 4), 1) : r < .8 ? "it is " option[0] : "hm"
        } else if (kind == "textvqa") {
            list = ""
            for (c = 0; c < 10; c++) list = list (c ? ", " : "") "\047" one(brand, n_brands) "\047"
            row = row "[" list "]"
            answer = one(brand, n_brands)
        } else {
            row = row (i % 2 ? "No" : "Yes") "\tcount\timages/" int(i / 2) ".jpg"
            answer = one(yes, n_yes)
        }
        print row >table
        printf "{\"index\": %d, \"prediction\": \"%s\"}\n", i, answer >said
    }
}'
