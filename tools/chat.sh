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
  IMAGE AUDIO        file of a picture or recording that goes with the (first) message
  MAX_TOKENS SEED STOP FREQUENCY_PENALTY PRESENCE_PENALTY LOGPROBS TOP_LOGPROBS RESPONSE_FORMAT TEMP TOP_P
                     fields of the request; JSON or plain text
TEXT
}

ROUTE=/v1/chat/completions
PART='.choices[0].delta.content'
WHOLE='.choices[0].message.content'
NUMBERS=usage

# shellcheck source=chat_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/chat_common.sh"
begin 'curl jq' "$@"

# body MESSAGES: the request. Messages come on stdin: with a picture they are longer than a word may be.
body() {
  jq -c \
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
    '{messages: ., stream: true, stream_options: {include_usage: true},
      frequency_penalty: $frequency_penalty, presence_penalty: $presence_penalty,
      logprobs: $logprobs, top_logprobs: $top_logprobs, max_tokens: $max_tokens, response_format: $response_format,
      seed: $seed, stop: $stop, temperature: $temperature, top_p: $top_p}' <<<"$1"
}

# content QUESTION: a text, or parts where $IMAGE or $AUDIO goes with it.
content() {
  jq -c -n --arg text "$1" --arg image "${IMAGE-}" --arg audio "${AUDIO-}" \
    --rawfile picture <(encoded "${IMAGE-}") --rawfile sound <(encoded "${AUDIO-}") '
    def suffix: ascii_downcase | split(".") | last | if . == "jpg" then "jpeg" else . end;
    [(select($image != "") | {type: "image_url", image_url: {url: "data:image/\($image | suffix);base64,\($picture)"}}),
     (select($audio != "") | {type: "input_audio", input_audio: {data: $sound, format: ($audio | suffix)}})]
    | if . == [] then $text else . + [{type: "text", text: $text}] end'
}

# encoded FILE: its bytes in base64; nothing where there is no FILE.
encoded() {
  if [ -n "$1" ]; then base64 <"$1" | tr -d '\n'; fi
}

messages='[]'

# ask QUESTION: put it behind what was said, and keep the answer.
ask() {
  local before=$messages
  messages=$(content "$1" | jq -c --slurpfile before <(printf '%s' "$before") \
    '$before[0] + [{role: "user", content: .}]')
  if run "$(body "$messages")"; then
    messages=$(jq -c --arg content "$answer" '. + [{role: "assistant", content: $content}]' <<<"$messages")
    IMAGE='' AUDIO=''
  else
    messages=$before # without the question that got no answer
    return 1
  fi
}

run_file_of "$@"
for file in "${IMAGE-}" "${AUDIO-}"; do
  if [ -n "$file" ]; then readable "$file"; fi
done
each ask "$@"
