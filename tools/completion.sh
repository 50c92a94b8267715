#!/usr/bin/env bash
# Talk to a llamabox server over the native /completion route. Needs bash, curl and jq.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: completion.sh [MESSAGE | @FILE]

  MESSAGE   ask once
  @FILE     send FILE as the JSON body of the request
  nothing   talk; the conversation is kept until end of input (Ctrl-D)

environment:
  API_URL    http://127.0.0.1:8080
  API_KEY    sent as a bearer token
  LOG_FILE   append each request and the lines of its answer
  N_PREDICT  tokens of an answer; unset is no limit
  SEED STOP  fields of the request; JSON or plain text
  TEMP (0.8)  TOP_P (0.9)  TOP_K (40)
TEXT
}

ROUTE=/completion
PART=.content
WHOLE=.content
NUMBERS=timings
PREAMBLE='A chat between a curious human and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the human'\''s questions.'

# shellcheck source=chat_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/chat_common.sh"
begin 'curl jq' "$@"

# body PROMPT: the request. The preamble stays when the context shifts.
body() {
  jq -c -n \
    --arg prompt "$1" \
    --argjson n_keep "$n_keep" \
    --argjson n_predict "$(as_json "${N_PREDICT-}" null)" \
    --argjson seed "$(as_json "${SEED-}" null)" \
    --argjson stop "$(as_json "${STOP-}" '["\n### Human:"]')" \
    --argjson temperature "$(as_json "${TEMP-}" 0.8)" \
    --argjson top_p "$(as_json "${TOP_P-}" 0.9)" \
    --argjson top_k "$(as_json "${TOP_K-}" 40)" \
    '{prompt: $prompt, n_keep: $n_keep, n_predict: $n_predict, seed: $seed,
      stop: (if $stop | type == "string" then [$stop] else $stop end),
      temperature: $temperature, top_p: $top_p, top_k: $top_k, cache_prompt: true, stream: true}'
}

# ask QUESTION: put it behind what was said, and keep the answer.
ask() {
  if run "$(body "$dialogue
### Human: $1
### Assistant:")"; then
    dialogue+="
### Human: $1
### Assistant:$answer"
  else
    return 1
  fi
}

run_file_of "$@"

dialogue=$PREAMBLE
n_keep=$(
  jq -c -n --arg content "$PREAMBLE" '{content: $content, add_special: true}' | post_json /tokenize |
    jq -e '.tokens | length' 2>/dev/null
) || {
  echo "no answer from $API_URL/tokenize" >&2
  exit 1
}
each ask "$@"
