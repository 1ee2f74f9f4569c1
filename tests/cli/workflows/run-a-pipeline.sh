#!/usr/bin/env bash
# Run what is there to run on every session of a project, and wait for the last of it.
set -euo pipefail

name=$(xnatctl pipeline list --project DEMO -o json | jq -er '.[0].name')
for session in $(xnatctl session list -P DEMO -q); do
  job=$(xnatctl pipeline run "$name" --experiment "$session" -o json | jq -er .job_id)
  xnatctl pipeline status "$job" --watch --interval 1 -o json | jq -e '.status == "Complete"'
done
