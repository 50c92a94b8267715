#!/usr/bin/env bash
# Change pictures with a llamabox server over /v1/images/edits. Needs bash, curl, jq and base64.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: IMAGE=FILE [MASK=FILE] image_edit.sh [PROMPT | @FILE]

  PROMPT    change the picture once
  @FILE     send FILE as the JSON body of the request, with its pictures in base64
  nothing   change the picture for each line, until end of input (Ctrl-D)

Prints the names of the PNG files that it writes; the progress goes to stderr.

environment:
  IMAGE        the picture
  MASK         white, or transparent, where it is to be drawn anew; unset is everywhere
TEXT
  shared_environment
}

# shellcheck source=image_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/image_common.sh"
begin 'curl jq base64' "$@"

# file FIELD PATH: a file as curl wants it, whatever its name holds.
file() {
  local path=${2//\\/\\\\}
  printf '%s=@"%s"' "$1" "${path//\"/\\\"}"
}

# run PROMPT: one exchange.
run() {
  local -a fields=(--form-string "prompt=$1" --form "$(file image "$IMAGE")")
  local name value
  if [ -n "${MASK-}" ]; then fields+=(--form "$(file mask "$MASK")"); fi
  for name in N SIZE QUALITY STYLE SAMPLER SEED CFG_SCALE SAMPLE_STEPS NEGATIVE_PROMPT; do
    value=${!name-}
    if [ -n "$value" ]; then fields+=(--form-string "$(tr '[:upper:]' '[:lower:]' <<<"$name")=$value"); fi
  done
  printf '%s\n' "$1" >>"$LOG_FILE"
  show < <(
    post /v1/images/edits "${fields[@]}" --form-string response_format=b64_json --form-string stream=true \
      --form-string 'stream_options={"include_usage": true}'
  )
}

case ${1-} in
  @*)
    readable "${1#@}"
    show < <(post /v1/images/edits --header 'Content-Type: application/json' --data-binary "$1")
    exit
    ;;
esac

if [ -z "${IMAGE-}" ]; then echo "image_edit.sh needs a picture: IMAGE=FILE image_edit.sh 'a red hat'" >&2 && exit 1; fi
readable "$IMAGE"
if [ -n "${MASK-}" ]; then readable "$MASK"; fi

each run "$@"
