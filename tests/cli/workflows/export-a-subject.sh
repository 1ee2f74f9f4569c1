#!/usr/bin/env bash
# Download every session of one subject.
set -euo pipefail

xnatctl session list -P DEMO --subject DEMO_001 --output json | jq -r '.[].id' |
  while read -r session; do
    xnatctl session download -E "$session" --out export --workers 4 --quiet </dev/null
  done

test "$(find export -mindepth 1 -maxdepth 1 -type d | wc -l)" -eq 2
test -n "$(find export -type f -name '*.dcm' -print -quit)"
