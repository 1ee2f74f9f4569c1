#!/usr/bin/env bash
# Carry the MR sessions of one subject from one server to another, session by session.
set -euo pipefail

xnatctl -p dev project create DEMO --exist-ok
xnatctl -p prod session list -P DEMO -S DEMO_001 --modality MR -o json | jq -r '.[].label' |
  while read -r label; do
    xnatctl session download --profile prod -P DEMO -E "$label" -r DICOM --out staging \
      --workers 2 --quiet </dev/null
    xnatctl session upload "staging/$label" --profile dev -P DEMO -S DEMO_001 -E "$label" \
      -o json </dev/null | jq -e '.status == "success"'
  done

for label in $(xnatctl -p dev session list -P DEMO -o json | jq -r '.[].label'); do
  diff <(xnatctl -p prod scan list -P DEMO -E "$label" -o json | jq -r '.[].id' | sort) \
    <(xnatctl -p dev scan list -P DEMO -E "$label" -o json | jq -r '.[].id' | sort)
done
test "$(xnatctl -p dev session list -P DEMO -q | wc -l)" -eq 2
