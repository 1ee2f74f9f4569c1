#!/usr/bin/env bash
# What a CI job does: no configuration file, the server and the login out of the environment.
set -euo pipefail

export XNAT_URL=$PROD_URL XNAT_USER=admin XNAT_PASS=admin
export HOME=$PWD/ci-home
mkdir -p "$HOME"

xnatctl whoami -o json | jq -e '.username == "admin"'
for session in $(xnatctl session list -P DEMO -S DEMO_002 -o json | jq -r '.[].id'); do
  xnatctl session download -E "$session" --out artifacts --quiet
done
test "$(find artifacts -mindepth 1 -maxdepth 1 -type d | wc -l)" -eq 2
test ! -e "$HOME/.config/xnatctl/config.yaml"
