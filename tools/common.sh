# What all scripts here have in common; sourced by chat_common.sh and image_common.sh, no command of its own.
# Each script has a function `usage`.

API_URL=${API_URL:-http://127.0.0.1:8080}
LOG_FILE=${LOG_FILE:-/dev/null}

# begin TOOLS [WORD]...: ends the script where its words are not to be run, or one of the tools is missing.
begin() {
  local tool tools=$1
  shift
  case ${1-} in -h | --help) usage && exit 0 ;; esac
  if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
  for tool in $tools; do
    command -v "$tool" >/dev/null || { echo "${0##*/} needs $tool" >&2 && exit 1; }
  done
}

# as_json TEXT [DEFAULT]: TEXT if it is JSON, else TEXT as a JSON string; DEFAULT, or null, where TEXT is empty.
as_json() {
  if [ -z "$1" ]; then printf '%s' "${2-null}"
  elif jq -e -n --argjson v "$1" 'true' >/dev/null 2>&1; then printf '%s' "$1"
  else jq -n --arg v "$1" '$v'; fi
}

# readable FILE: ends the script where it is not.
readable() {
  [ -r "$1" ] && [ ! -d "$1" ] || { echo "cannot read $1" >&2 && exit 1; }
}

# post PATH [CURL OPTION...]: prints the answer's lines; without an answer an error's, as the server writes it.
post() {
  local path=$1
  shift
  if [ -n "${API_KEY-}" ]; then set -- --header "Authorization: Bearer $API_KEY" "$@"; fi
  curl --silent --show-error --no-buffer "$@" "$API_URL$path" ||
    printf 'error: {"message": "no answer from %s"}\n' "$API_URL"
}

# post_json PATH: posts the JSON on stdin.
post_json() {
  post "$1" --header 'Content-Type: application/json' --data-binary @-
}

# tell_error ANSWER: says what the server's answer gives as the reason.
tell_error() {
  local text
  text=$(jq -r '.error.message? // .message? // .' <<<"$1" 2>/dev/null || printf '%s' "$1")
  printf '\nerror: %s\n' "$text" >&2
}

# tell_numbers JSON: says the numbers of an object; nothing where JSON is empty.
tell_numbers() {
  if [ -n "$1" ]; then
    jq -r '"[" + ([to_entries[] | select(.value | type == "number") | "\(.key): \(.value * 100 | round / 100)"]
      | join(", ")) + "]"' <<<"$1" >&2
  fi
}

# each COMMAND [WORDS]: runs COMMAND with the words, or else with each line of the input, and ends the script. Its status
# tells of any error.
each() {
  local command=$1 line status=0
  if [ $# -gt 1 ]; then
    "$command" "$2"
    exit
  fi
  while IFS= read -r -e -p '> ' line || [ -n "${line-}" ]; do
    [ -n "$line" ] || continue
    "$command" "$line" || status=1
  done
  exit "$status"
}
