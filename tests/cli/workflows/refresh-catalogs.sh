#!/usr/bin/env bash
# Have the server look at its disk again, and stop when one experiment could not be refreshed.
set -euo pipefail

xnatctl admin refresh-catalogs DEMO --option checksum --option populateStats -o json > refreshed.json
jq -e '.project == "DEMO" and .failed == [] and .count == (.refreshed | length)' refreshed.json
