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
TEXT
  shared_environment
}

# shellcheck source=image_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/image_common.sh"
begin 'curl jq base64' "$@"

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

# send BODY: one exchange.
send() {
  printf '%s\n' "$1" >>"$LOG_FILE"
  show < <(post_json /v1/images/generations <<<"$1")
}

# run PROMPT: draws it.
run() {
  send "$(body "$1")"
}

case ${1-} in
  @*)
    readable "${1#@}"
    send "$(cat "${1#@}")"
    exit
    ;;
esac
each run "$@"
