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
  N_PREDICT  tokens of an answer; unset is no limit
  SEED STOP  fields of the request; JSON or plain text
  TEMP (0.8)  TOP_P (0.9)  TOP_K (40)
TEXT
}

API_URL=${API_URL:-http://127.0.0.1:8080}
PREAMBLE='A chat between a curious human and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the human'\''s questions.'

case ${1-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
for tool in curl jq; do
  command -v "$tool" >/dev/null || { echo "completion.sh needs $tool" >&2 && exit 1; }
done

# as_json TEXT DEFAULT: TEXT if it is JSON, else TEXT as a JSON string; DEFAULT where TEXT is empty.
as_json() {
  if [ -z "$1" ]; then printf '%s' "$2"
  elif jq -e -n --argjson v "$1" 'true' >/dev/null 2>&1; then printf '%s' "$1"
  else jq -n --arg v "$1" '$v'; fi
}

# post PATH: send stdin, print the answer's lines.
post() {
  local headers=(--header 'Content-Type: application/json')
  if [ -n "${API_KEY-}" ]; then headers+=(--header "Authorization: Bearer $API_KEY"); fi
  curl --silent --show-error --no-buffer "${headers[@]}" --data-binary @- "$API_URL$1"
}

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

# show: read the answer from stdin, print its text; the whole text is left in $answer. Fails on an error.
show() {
  local line data part timings='' plain='' status=0
  answer=''
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    case $line in
      'data: [DONE]'*) break ;;
      'data: '*)
        data=${line#data: }
        # The x keeps a newline at the end, which $(...) would drop.
        part=$(jq -j 'if has("error") then "E" else "D" + (.content // "") end + "x"' <<<"$data")
        if [ "${part:0:1}" != D ]; then
          plain=$data
          break
        fi
        part=${part:1:-1}
        printf '%s' "$part"
        answer+=$part
        case $data in *'"timings":'*) timings=$(jq -c '.timings // empty' <<<"$data") ;; esac
        ;;
      'error: '*)
        plain=${line#error: }
        break
        ;;
      '' | :*) ;;
      *) plain+=$line ;; # no stream: a plain answer, or an error before the first token
    esac
  done
  if [ -n "$plain" ]; then
    if part=$(jq -e -r '.content' <<<"$plain" 2>/dev/null); then
      printf '%s' "$part"
      answer=$part
      timings=$(jq -c '.timings // empty' <<<"$plain")
    else
      printf '\nerror: %s\n' "$(jq -r '.error.message? // .message? // .' <<<"$plain" 2>/dev/null || printf '%s' "$plain")" >&2
      status=1
    fi
  fi
  printf '\n'
  if [ -n "$timings" ]; then
    jq -r '"[" + ([to_entries[] | select(.value | type == "number") | "\(.key): \(.value * 100 | round / 100)"]
      | join(", ")) + "]"' <<<"$timings" >&2
  fi
  return "$status"
}

# run BODY: one exchange.
run() {
  # Not a pipe: show must leave $answer in this shell.
  show < <(post /completion <<<"$1" || printf 'error: {"message": "no answer from %s"}\n' "$API_URL")
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

if [ "${1+given}" ] && [ "${1#@}" != "$1" ]; then
  [ -r "${1#@}" ] || { echo "cannot read ${1#@}" >&2 && exit 1; }
  run "$(cat "${1#@}")"
  exit
fi

dialogue=$PREAMBLE
n_keep=$(jq -c -n --arg content "$PREAMBLE" '{content: $content, add_special: true}' | post /tokenize | jq -e '.tokens | length') || {
  echo "no answer from $API_URL/tokenize" >&2
  exit 1
}

if [ "${1+given}" ]; then
  ask "$1"
  exit
fi
while IFS= read -r -e -p '> ' question || [ -n "${question-}" ]; do
  [ -n "$question" ] || continue
  ask "$question"
done
