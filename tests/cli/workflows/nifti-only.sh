#!/usr/bin/env bash
# Fetch the NIFTI resources of the sessions of a subject that have some, and nothing else.
set -euo pipefail

xnatctl session list -P DEMO --subject DEMO_001 -o json | jq -r '.[].id' |
  while read -r session; do
    for scan in $(xnatctl scan list -E "$session" -o json </dev/null | jq -r '.[].id'); do
      if xnatctl resource list "$session" --scan "$scan" --output json </dev/null |
        jq -e 'any(.[]; .label == "NIFTI")' >/dev/null; then
        xnatctl resource download "$session" NIFTI --scan "$scan" \
          --file "$session-$scan-NIFTI.zip" </dev/null
      fi
    done
  done

ls ./*-NIFTI.zip
for archive in ./*-NIFTI.zip; do python3 -m zipfile -t "$archive"; done
