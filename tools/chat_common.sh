# What chat.sh and completion.sh have in common; sourced by both, no command of its own.
# Each says where it posts to and where an answer has its text and its numbers:
#
#   ROUTE    path of the route
#   PART     jq's path of the text in an event of a stream
#   WHOLE    jq's path of the text in an answer without a stream
#   NUMBERS  name of the field with numbers about the answer

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# show: read the answer from stdin, print its text; the whole text is left in $answer. Fails on an error.
show() {
  local line data part numbers='' plain='' status=0
  answer=''
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    printf '%s\n' "$line" >>"$LOG_FILE"
    case $line in
      'data: [DONE]'*) break ;;
      'data: '*)
        data=${line#data: }
        # The x keeps a newline at the end, which $(...) would drop.
        part=$(jq -j "if has(\"error\") then \"E\" else \"D\" + ($PART // \"\") end + \"x\"" <<<"$data")
        if [ "${part:0:1}" != D ]; then
          plain=$data
          break
        fi
        part=${part:1:-1}
        printf '%s' "$part"
        answer+=$part
        case $data in
          *"\"$NUMBERS\":"*) numbers=$(jq -c --argjson last "${numbers:-null}" ".$NUMBERS // \$last // empty" <<<"$data") ;;
        esac
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
    if part=$(jq -e -r "$WHOLE" <<<"$plain" 2>/dev/null); then
      printf '%s' "$part"
      answer=$part
      numbers=$(jq -c ".$NUMBERS // empty" <<<"$plain")
    else
      tell_error "$plain"
      status=1
    fi
  fi
  printf '\n'
  tell_numbers "$numbers"
  return "$status"
}

# run BODY: one exchange.
run() {
  printf '%s\n' "$1" >>"$LOG_FILE"
  # Not a pipe: show must leave $answer in this shell.
  show < <(post_json "$ROUTE" <<<"$1")
}

# run_file_of WORD: where the script's word is @FILE, send that file and end the script.
run_file_of() {
  case ${1-} in
    @*)
      readable "${1#@}"
      run "$(cat "${1#@}")"
      exit
      ;;
  esac
}
