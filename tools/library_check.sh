#!/usr/bin/env bash
# llama.cpp of other ages: each is built whole, says what it lacks, and chats, embeds, keeps slots and takes adapters.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: library_check.sh [VERSION...]

  VERSION   releases of llama-cpp-python whose llama.cpp is built; 0.3.27 0.3.31 0.3.36

Needs what a build and the tests need: a compiler, and a Python with llamabox's tests' packages. pip fetches the sources,
and an interrupted build goes on where it stopped.

environment:
  PYTHON      python
  PREFIXES    a folder for the built libraries, and for those that are there already, as PREFIXES/VERSION; else they are
              removed when they have been tried

The exit status is 1 where a build or a test fails.
TEXT
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
python=${PYTHON:-python}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefixes=${PREFIXES:-$folder/prefixes}
mkdir -p "$prefixes"
prefixes=$(realpath "$prefixes")
versions=("$@")
if [ $# = 0 ]; then versions=(0.3.27 0.3.31 0.3.36); fi

# unpacked VERSION: the llama.cpp of a release. Prints its folder; nothing for the release that is pinned.
unpacked() {
  "$python" - "$1" "$folder" <<'PYTHON'
import sys
from pathlib import Path

from native.build import sources

version, folder = sys.argv[1], Path(sys.argv[2])
pinned = sources.read_versions()
if version != pinned.version:
    archive = sources.download(pinned.package, version, folder)
    source = sources.Source(pinned.package, version, sources.sha256(archive), pinned.folder, "", 0)
    sources.unpack(archive, source, folder / version)
    archive.unlink()
    print(folder / version)
PYTHON
}

# build VERSION: into its prefix, unless it is there.
build() {
  local tree words=(--without-images --prefix "$prefixes/$1")
  if [ -f "$prefixes/$1/build.json" ]; then return; fi
  tree=$(unpacked "$1") || return 1
  if [ -n "$tree" ]; then words+=(--llama-cpp "$tree"); fi
  "$python" build_native.py "${words[@]}"
}

tried=(tests/e2e/texts tests/e2e/clients/test_openai_client.py tests/e2e/embeddings/test_embeddings.py)
failed=0
for version in "${versions[@]}"; do
  echo "== $version"
  build "$version" || { failed=1 && continue; }
  export LLAMABOX_NATIVE=$prefixes/$version
  "$python" -m llamabox --version || failed=1
  "$python" -m pytest -n 0 -q "${tried[@]}" || failed=1
done
exit "$failed"
