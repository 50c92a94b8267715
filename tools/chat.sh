#!/usr/bin/env bash
# Chat with a llamabox server over /v1/chat/completions. Needs bash, curl and jq.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: chat.sh [MESSAGE | @FILE]

  MESSAGE   ask once
  @FILE     send FILE as the JSON body of the request
  nothing   talk; the conversation is kept until end of input (Ctrl-D)

environment:
  API_URL            http://127.0.0.1:8080
  API_KEY            sent as a bearer token
  LOG_FILE           append each request and the lines of its answer
  MAX_TOKENS SEED STOP FREQUENCY_PENALTY PRESENCE_PENALTY LOGPROBS TOP_LOGPROBS RESPONSE_FORMAT TEMP TOP_P
                     fields of the request; JSON or plain text
TEXT
}

API_URL=${API_URL:-http://127.0.0.1:8080}
LOG_FILE=${LOG_FILE:-/dev/null}

case ${1-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
for tool in curl jq; do
  command -v "$tool" >/dev/null || { echo "chat.sh needs $tool" >&2 && exit 1; }
done

# as_json TEXT DEFAULT: TEXT if it is JSON, else TEXT as a JSON string; DEFAULT where TEXT is empty.
as_json() {
  if [ -z "$1" ]; then printf '%s' "$2"
  elif jq -e -n --argjson v "$1" 'true' >/dev/null 2>&1; then printf '%s' "$1"
  else jq -n --arg v "$1" '$v'; fi
}

# body MESSAGES: the request.
body() {
  jq -c -n \
    --argjson messages "$1" \
    --argjson frequency_penalty "$(as_json "${FREQUENCY_PENALTY-}" null)" \
    --argjson presence_penalty "$(as_json "${PRESENCE_PENALTY-}" null)" \
    --argjson logprobs "$(as_json "${LOGPROBS-}" null)" \
    --argjson top_logprobs "$(as_json "${TOP_LOGPROBS-}" null)" \
    --argjson max_tokens "$(as_json "${MAX_TOKENS-}" null)" \
    --argjson response_format "$(as_json "${RESPONSE_FORMAT-}" null)" \
    --argjson seed "$(as_json "${SEED-}" null)" \
    --argjson stop "$(as_json "${STOP-}" null)" \
    --argjson temperature "$(as_json "${TEMP-}" null)" \
    --argjson top_p "$(as_json "${TOP_P-}" null)" \
    '{messages: $messages, stream: true, stream_options: {include_usage: true},
      frequency_penalty: $frequency_penalty, presence_penalty: $presence_penalty,
      logprobs: $logprobs, top_logprobs: $top_logprobs, max_tokens: $max_tokens, response_format: $response_format,
      seed: $seed, stop: $stop, temperature: $temperature, top_p: $top_p}'
}

# post: send stdin, print the answer's lines.
post() {
  local headers=(--header 'Content-Type: application/json')
  if [ -n "${API_KEY-}" ]; then headers+=(--header "Authorization: Bearer $API_KEY"); fi
  curl --silent --show-error --no-buffer "${headers[@]}" --data-binary @- "$API_URL/v1/chat/completions"
}

# show: read the answer from stdin, print its text; the whole text is left in $answer. Fails on an error.
show() {
  local line data part usage='' plain='' status=0
  answer=''
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    printf '%s\n' "$line" >>"$LOG_FILE"
    case $line in
      'data: [DONE]'*) break ;;
      'data: '*)
        data=${line#data: }
        # The x keeps a newline at the end, which $(...) would drop.
        part=$(jq -j 'if has("error") then "E" else "D" + (.choices[0].delta.content // "") end + "x"' <<<"$data")
        if [ "${part:0:1}" != D ]; then
          plain=$data
          break
        fi
        part=${part:1:-1}
        printf '%s' "$part"
        answer+=$part
        case $data in *'"usage":'*) usage=$(jq -c --argjson last "${usage:-null}" '.usage // $last // empty' <<<"$data") ;; esac
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
    if part=$(jq -e -r '.choices[0].message.content' <<<"$plain" 2>/dev/null); then
      printf '%s' "$part"
      answer=$part
      usage=$(jq -c '.usage // empty' <<<"$plain")
    else
      printf '\nerror: %s\n' "$(jq -r '.error.message? // .message? // .' <<<"$plain" 2>/dev/null || printf '%s' "$plain")" >&2
      status=1
    fi
  fi
  printf '\n'
  if [ -n "$usage" ]; then
    jq -r '"[" + ([to_entries[] | select(.value | type == "number") | "\(.key): \(.value * 100 | round / 100)"]
      | join(", ")) + "]"' <<<"$usage" >&2
  fi
  return "$status"
}

# run BODY: one exchange.
run() {
  printf '%s\n' "$1" >>"$LOG_FILE"
  # Not a pipe: show must leave $answer in this shell.
  show < <(post <<<"$1" || printf 'error: {"message": "no answer from %s"}\n' "$API_URL")
}

if [ "${1+given}" ]; then
  case $1 in
    @*)
      [ -r "${1#@}" ] || { echo "cannot read ${1#@}" >&2 && exit 1; }
      run "$(cat "${1#@}")"
      ;;
    *) run "$(body "$(jq -c -n --arg content "$1" '[{role: "user", content: $content}]')")" ;;
  esac
  exit
fi

messages='[]'
while IFS= read -r -e -p '> ' question || [ -n "${question-}" ]; do
  [ -n "$question" ] || continue
  messages=$(jq -c --arg content "$question" '. + [{role: "user", content: $content}]' <<<"$messages")
  if run "$(body "$messages")"; then
    messages=$(jq -c --arg content "$answer" '. + [{role: "assistant", content: $content}]' <<<"$messages")
  else
    messages=$(jq -c '.[:-1]' <<<"$messages") # the question that got no answer
  fi
done
