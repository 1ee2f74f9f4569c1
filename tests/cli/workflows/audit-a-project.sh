#!/usr/bin/env bash
# Compare a project with a list of what should be in it: session label and number of scans.
set -euo pipefail

xnatctl session list -P DEMO --limit 3 -o json | jq -r '.[].label' |
  while read -r label; do
    echo "$label,$(xnatctl scan list -P DEMO -E "$label" -o json </dev/null | jq length)"
  done > manifest.csv
echo "DEMO_999_MR1,3" >> manifest.csv

wrong=0
while IFS=, read -r label expected; do
  found=$(xnatctl scan list -P DEMO -E "$label" --output json 2>/dev/null </dev/null | jq length) || true
  if [ "${found:-0}" != "$expected" ]; then
    echo "$label: ${found:-0} of $expected scans"
    wrong=$((wrong + 1))
  fi
done < manifest.csv
test "$wrong" -eq 1

status=0
xnatctl scan list -P DEMO -E DEMO_999_MR1 -o json > nothing.json 2>/dev/null || status=$?
test "$status" -eq 5
test ! -s nothing.json
