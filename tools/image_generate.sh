#!/usr/bin/env bash
# Draw pictures with a llamabox server over /v1/images/generations. Needs bash, curl, jq and base64.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: image_generate.sh [PROMPT | @FILE]

  PROMPT    draw once
  @FILE     send FILE as the JSON body of the request
  nothing   draw a picture for each line, until end of input (Ctrl-D)

Prints the names of the PNG files that it writes; the progress goes to stderr.

environment:
  API_URL      http://127.0.0.1:8080
  API_KEY      sent as a bearer token
  LOG_FILE     append each request and the lines of its answer
  OUTPUT_DIR   where pictures go (.)
  N SIZE QUALITY STYLE SAMPLER SEED CFG_SCALE SAMPLE_STEPS NEGATIVE_PROMPT
               fields of the request; what is unset is the server's
TEXT
}

API_URL=${API_URL:-http://127.0.0.1:8080}
LOG_FILE=${LOG_FILE:-/dev/null}
OUTPUT_DIR=${OUTPUT_DIR:-.}
# shellcheck source=image_answer.sh
source "$(dirname "${BASH_SOURCE[0]}")/image_answer.sh"

case ${1-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
need curl jq base64

# body PROMPT: the request.
body() {
  jq -c -n \
    --arg prompt "$1" \
    --arg negative_prompt "${NEGATIVE_PROMPT-}" \
    --argjson n "$(as_json "${N-}")" \
    --argjson size "$(as_json "${SIZE-}")" \
    --argjson quality "$(as_json "${QUALITY-}")" \
    --argjson style "$(as_json "${STYLE-}")" \
    --argjson sampler "$(as_json "${SAMPLER-}")" \
    --argjson seed "$(as_json "${SEED-}")" \
    --argjson cfg_scale "$(as_json "${CFG_SCALE-}")" \
    --argjson sample_steps "$(as_json "${SAMPLE_STEPS-}")" \
    '{prompt: $prompt, n: $n, size: $size, quality: $quality, style: $style, sampler: $sampler, seed: $seed,
      cfg_scale: $cfg_scale, sample_steps: $sample_steps, negative_prompt: $negative_prompt,
      response_format: "b64_json", stream: true, stream_options: {include_usage: true}}'
}

# run BODY: one exchange.
run() {
  printf '%s\n' "$1" >>"$LOG_FILE"
  show < <(post /v1/images/generations --header 'Content-Type: application/json' --data-binary @- <<<"$1")
}

if [ "${1+given}" ]; then
  case $1 in
    @*)
      readable "${1#@}"
      run "$(cat "${1#@}")"
      ;;
    *) run "$(body "$1")" ;;
  esac
  exit
fi

status=0
while IFS= read -r -e -p '> ' prompt || [ -n "${prompt-}" ]; do
  [ -n "$prompt" ] || continue
  run "$(body "$prompt")" || status=1
done
exit "$status"
