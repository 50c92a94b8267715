# What image_generate.sh and image_edit.sh have in common; sourced by both, no command of its own.
# Each has a function `usage`, and `run PROMPT` for one exchange, which fails on an error.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUTPUT_DIR=${OUTPUT_DIR:-.}

# shared_environment: the end of `usage`.
shared_environment() {
  cat <<'TEXT'
  API_URL      http://127.0.0.1:8080
  API_KEY      sent as a bearer token
  LOG_FILE     append what is asked and the lines of its answer
  OUTPUT_DIR   where pictures go (.)
  N SIZE QUALITY STYLE SAMPLER SEED CFG_SCALE SAMPLE_STEPS NEGATIVE_PROMPT
               fields of the request; what is unset is the server's
TEXT
}

# save INDEX BASE64: writes a picture to a new file in $OUTPUT_DIR and prints its name.
save() {
  local stem file n=0
  stem=$OUTPUT_DIR/image-$(date +%Y%m%d-%H%M%S)
  file=$stem-$1.png
  while [ -e "$file" ]; do file=$stem-$1-$((++n)).png; done
  printf '%s' "$2" | base64 -d >"$file" && printf '%s\n' "$file"
}

# show: reads the answer from stdin, tells the progress and writes the pictures. Fails on an error.
show() {
  local line data index progress share end text usage='' plain='' last='' status=0
  local -a pieces=()
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    printf '%s\n' "$line" >>"$LOG_FILE"
    case $line in
      'data: [DONE]'*) break ;;
      'data: '*)
        data=${line#data: }
        if ! IFS=$'\t' read -r index progress share end text < <(
          jq -r 'if has("error") then empty else .data[0] |
            [.index, (.progress | floor), (if .progress == 100 then "whole" else "part" end),
             .finish_reason // "none", .b64_json // ""] | join("\t") end' <<<"$data"
        ); then
          plain=$data
          break
        fi
        if [ "$share" = whole ]; then pieces[index]=${pieces[index]-}$text; fi
        if [ "$end" = stop ]; then
          printf '\rimage %s: 100%%\n' "$index" >&2
          save "$index" "${pieces[index]}" || status=1
          pieces[index]=''
          usage=$(jq -c '.usage // empty' <<<"$data")
        elif [ "$index $progress" != "$last" ]; then
          printf '\rimage %s: %3d%%' "$index" "$progress" >&2
          last="$index $progress"
        fi
        ;;
      'error: '*)
        plain=${line#error: }
        break
        ;;
      ': queued'*) printf '\r%s' "${line#: }" >&2 ;;
      '' | :*) ;;
      *) plain+=$line ;; # no stream: a plain answer, or an error before the first step
    esac
  done
  if [ -n "$plain" ]; then
    if jq -e '.data[0].b64_json' <<<"$plain" >/dev/null 2>&1; then
      while IFS=$'\t' read -r index text; do save "$index" "$text" || status=1; done < <(
        jq -r '.data[] | [.index, .b64_json] | join("\t")' <<<"$plain"
      )
      usage=$(jq -c '.usage // empty' <<<"$plain")
    else
      tell_error "$plain"
      status=1
    fi
  fi
  tell_numbers "$usage"
  return "$status"
}
