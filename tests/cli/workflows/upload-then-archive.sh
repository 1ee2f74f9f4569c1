#!/usr/bin/env bash
# Upload a folder of DICOM into the prearchive, look at it there, archive it.
set -euo pipefail

xnatctl project create INBOX --exist-ok
xnatctl session upload dicom -P INBOX -S SUB1 -E SUB1_MR1 --prearchive --workers 4 -o json |
  jq -e '.status == "success" and .files > 0'

xnatctl prearchive list --project INBOX -o json |
  jq -r '.[] | select(.status == "READY") | [.project, .timestamp, .name] | @tsv' |
  while IFS=$'\t' read -r project timestamp name; do
    xnatctl prearchive archive "$project" "$timestamp" "$name" --subject SUB1 --label SUB1_MR1 \
      -o json </dev/null | jq -e .success
  done

xnatctl session show -P INBOX -E SUB1_MR1 -o json | jq -e '.subject == "SUB1" and (.scans | length > 0)'
xnatctl prearchive list --project INBOX -o json | jq -e 'length == 0'
