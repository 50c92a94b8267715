#!/usr/bin/env bash
# What an image of llamabox must do, tried with docker or podman. Needs bash, curl and jq.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: container_check.sh [IMAGE]

  IMAGE     an image that is there; without one Dockerfile.cpu is built first and called llamabox:check

environment:
  ENGINE      docker or podman; which of them is there, docker first
  BUILDER     the command that builds, `buildah build` for instance; $ENGINE build
  MODEL       a GGUF file; without one the image fetches its demo model, once for each container
  NETWORK     a network that is there; `host` gives all containers the host's. Without one a network is made, and removed
  RUN_ARGS    further words for each `run`, such as "--gpus all" or "--ulimit nofile=1024:4096"
  SECONDS_UP  how long a server may take until it is well; 300

A table of the checks goes to standard output. The exit status is 1 where one failed. A check that this engine cannot try
says "not tried", and why.
TEXT
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
for tool in curl jq; do
  command -v "$tool" >/dev/null || { echo "container_check.sh needs $tool" >&2 && exit 1; }
done
for engine in docker podman; do
  if [ -z "${ENGINE-}" ] && command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then ENGINE=$engine; fi
done
[ -n "${ENGINE-}" ] || { echo "container_check.sh needs docker or podman, with its service running" >&2 && exit 1; }

IMAGE=${1-}
NETWORK=${NETWORK-}
SECONDS_UP=${SECONDS_UP:-300}
read -ra run_args <<<"${RUN_ARGS-}"
prefix=llamabox-check-$$
sources=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
if [ -n "${MODEL-}" ]; then MODEL=$(realpath -e "$MODEL") || exit 1; fi
folder=$(mktemp -d)
cd "$folder" || exit 1 # podman's monitor leaves a file where it was started when memory runs out
failed=0
own_network=

# shellcheck disable=SC2329
clean_up() {
  local name
  for name in server lender limited drained crowded; do "$ENGINE" rm -f -v "$prefix-$name" >/dev/null 2>&1; done
  [ -z "$own_network" ] || "$ENGINE" network rm "$own_network" >/dev/null 2>&1
  cd / && rm -rf "$folder"
}
trap clean_up EXIT

# row CHECK RESULT DETAIL: a line of the table, at once.
row() {
  printf '%-34s %-10s %s\n' "$1" "$2" "${3-}"
  if [ "$2" = FAILED ]; then failed=1; fi
}

# verdict CHECK DETAIL COMMAND...: ok where the command succeeds, else FAILED.
verdict() {
  if "${@:3}"; then row "$1" ok "$2"; else row "$1" FAILED "$2"; fi
}

# like TEXT EXPRESSION: whether it is found there, as grep -E finds it.
# shellcheck disable=SC2329
like() { grep -Eq -- "$2" <<<"$1"; }

# free_port: one that nobody listens on.
free_port() {
  local port
  for port in $(shuf -i 20000-32000 -n 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
  done
}

# up NAME WORDS... [-- OPTIONS...]: starts a container of the image; WORDS are for `run`, OPTIONS for llamabox.
up() {
  local name=$1 words=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do words+=("$1") && shift; done
  if [ $# -gt 0 ]; then shift; fi
  if [ -n "${MODEL-}" ]; then words+=(-v "$MODEL:/models/model.gguf:ro"); fi
  # The root is read-only and there are no rights in every check: no server may need them.
  "$ENGINE" run -d --name "$prefix-$name" --network "${NETWORK:-$own_network}" --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges "${run_args[@]}" "${words[@]}" "$IMAGE" "$@" >/dev/null 2>"$folder/$name.err" ||
    { tail -n 1 "$folder/$name.err" && return 1; }
}

# serve NAME WORDS... [-- OPTIONS...]: the same with a model and a port of the host's, in $port, until it is well.
serve() {
  local name=$1 words=() options=() began=$SECONDS
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do words+=("$1") && shift; done
  if [ $# -gt 0 ]; then shift; fi
  port=$(free_port)
  if [ -n "${MODEL-}" ]; then options+=(-m /models/model.gguf); fi
  if [ "$NETWORK" = host ]; then options+=(--port "$port"); else words+=(-p "127.0.0.1:$port:8080"); fi
  up "$name" "${words[@]}" -- "${options[@]}" "$@" || return 1
  until [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/health")" = 200 ]; do
    if [ $((SECONDS - began)) -gt "$SECONDS_UP" ] || [ "$(state "$name")" != true ]; then return 1; fi
    sleep 0.1
  done
}

# state NAME: true while it runs. code NAME: its exit status.
state() { "$ENGINE" inspect -f '{{.State.Running}}' "$prefix-$1" 2>/dev/null; }
code() { "$ENGINE" inspect -f '{{.State.ExitCode}}' "$prefix-$1" 2>/dev/null; }

# last_line NAME: of its log.
last_line() { "$ENGINE" logs "$prefix-$1" 2>&1 | tail -n 1 | cut -c1-150; }

# inside NAME WORDS...: what a command in the container prints.
inside() {
  local name=$1
  shift
  "$ENGINE" exec "$prefix-$name" "$@" 2>&1
}

# no_root STATUS: whether these lines of /proc/PID/status have no user 0.
# shellcheck disable=SC2329
no_root() { like "$1" Uid: && ! like "$1" '[[:space:]]0([[:space:]]|$)'; }

# chat [FIELDS]: the answer's text.
chat() {
  jq -n "{messages: [{role: \"user\", content: \"What is the capital of France?\"}], max_tokens: 16, temperature: 0} ${1-}" |
    curl -s -m 300 "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' --data-binary @- |
    jq -r '.choices[0].message.content // empty'
}

# ---- the image ---------------------------------------------------------------------------------------------------------

if [ -z "$IMAGE" ]; then
  IMAGE=llamabox:check
  read -ra builder <<<"${BUILDER:-$ENGINE build}"
  began=$SECONDS
  (cd "$sources" && "${builder[@]}" -f Dockerfile.cpu -t "$IMAGE" .) >"$folder/build.log" 2>&1
  built=$?
  verdict "Dockerfile.cpu builds" "$((SECONDS - began)) s" [ "$built" -eq 0 ]
  if [ "$built" -ne 0 ]; then tail -n 20 "$folder/build.log" >&2 && exit 1; fi
fi
about=$("$ENGINE" image inspect "$IMAGE" 2>/dev/null | jq -c '.[0]') || about=
[ -n "$about" ] || { echo "no image $IMAGE" >&2 && exit 1; }
row "image" ok "$(jq -r '"\(.Size / 1e6 | round) MB, \(.Architecture)"' <<<"$about")"
user=$(jq -r '.Config.User // .User // ""' <<<"$about")
verdict "user by number, not root" "$user" like "$user" '^[1-9][0-9]*(:[0-9]+)?$'
labels=$(jq -c '.Config.Labels // {} | with_entries(.key |= ltrimstr("org.opencontainers.image."))' <<<"$about")
verdict "OCI labels" "$labels" like "$labels" '"title":"llamabox"'
volumes=$(jq -c '.Config.Volumes // {} | keys' <<<"$about")
verdict "/models is a volume" "$volumes" like "$volumes" '"/models"'
check=$(jq -c '.Config.Healthcheck // .HealthCheck // .Healthcheck // {} | .Test // []' <<<"$about")
verdict "health check" "$check" like "$check" '"health"'

if [ -z "$NETWORK" ]; then
  own_network=$prefix
  "$ENGINE" network create "$own_network" >/dev/null || exit 1
fi

# ---- a server ----------------------------------------------------------------------------------------------------------

began=$(date +%s%N)
if serve server; then
  row "starts, read-only, without rights" ok "well after $((($(date +%s%N) - began) / 1000000)) ms"
  answer=$(chat)
  verdict "chat" "$answer" [ -n "$answer" ]
  said=$(inside server llamabox health)
  verdict "llamabox health" "$said" like "$said" '^ok: '
  said=$(inside server sh -c 'cat /proc/[0-9]*/status | grep ^Uid: | sort | uniq -c')
  verdict "no process is root's" "$(tr -s '[:space:]' ' ' <<<"$said")" no_root "$said"
  said=$(inside server sh -c 'touch /opt/llamabox/x || touch /x || echo refused')
  verdict "nothing of it can be written" "$(head -n 1 <<<"$said")" like "$said" '^refused$'
  began=$(date +%s%N)
  "$ENGINE" stop -t 30 "$prefix-server" >/dev/null
  verdict "stops when idle" "exit status $(code server) after $((($(date +%s%N) - began) / 1000000)) ms" [ "$(code server)" = 0 ]
else
  row "starts, read-only, without rights" FAILED "$(last_line server)"
fi

# ---- limits ------------------------------------------------------------------------------------------------------------

if said=$(up limited --cpus 1 --entrypoint python -- -c 'from llamabox.machine import processors; print(processors.cpu_quota(), processors.n_physical())'); then
  "$ENGINE" wait "$prefix-limited" >/dev/null
  said=$(last_line limited)
  if [[ $said == None* ]]; then row "--cpus 1 is one thread" "not tried" "the engine sets no quota here"; else
    verdict "--cpus 1 is one thread" "quota and threads: $said" [ "${said##* }" = 1 ]
  fi
  "$ENGINE" rm -f -v "$prefix-limited" >/dev/null 2>&1
else
  row "--cpus 1 is one thread" "not tried" "$said"
fi

# The limit is one that no model fits in: whatever ends must say so and end, not hang or be restarted for ever.
if said=$(up crowded --memory 48m --memory-swap 48m -- ${MODEL:+-m /models/model.gguf} --port "$(free_port)"); then
  for _ in $(seq 600); do [ "$(state crowded)" = true ] || break; sleep 0.1; done
  limit=$("$ENGINE" inspect -f '{{.HostConfig.Memory}}' "$prefix-crowded")
  if [ "$limit" != $((48 << 20)) ]; then row "a memory limit that is too low" "not tried" "the engine sets no limit here"; else
    verdict "a memory limit that is too low" "ends with $(code crowded): $(last_line crowded)" \
      like "$(state crowded) $(code crowded)" '^false [1-9]'
  fi
else
  row "a memory limit that is too low" "not tried" "$said"
fi

# ---- two containers ----------------------------------------------------------------------------------------------------

rpc_port=$(free_port)
# address NAME: by its number, as not every engine makes names of containers known.
address() { "$ENGINE" inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$prefix-$1"; }

# borrow: a server that computes on the lender.
borrow() {
  local at=127.0.0.1
  if [ "$NETWORK" != host ]; then at=$(address lender); fi
  serve drained -- --rpc "$at:$rpc_port" -c 2048
}

if said=$(up lender -- --rpc-server-host 0.0.0.0 --rpc-server-port "$rpc_port") && borrow; then
  answer=$(chat)
  devices=$(curl -s "http://127.0.0.1:$port/v1/models" | jq -c '.data[0].meta.split // empty')
  verdict "RPC between two containers" "$answer; $(cut -c1-80 <<<"$devices")" like "$answer$devices" '.+RPC'

  # ---- a stop amid an answer -------------------------------------------------------------------------------------------
  curl -sN -m 120 "http://127.0.0.1:$port/completion" -H 'Content-Type: application/json' \
    --data '{"prompt": "Once upon a time", "n_predict": 64, "ignore_eos": true, "stream": true}' >"$folder/stream" &
  reader=$!
  until grep -q content "$folder/stream" 2>/dev/null || ! kill -0 "$reader" 2>/dev/null; do sleep 0.02; done
  before=$(grep -c '^data:' "$folder/stream")
  "$ENGINE" stop -t 30 "$prefix-drained" >/dev/null
  wait "$reader"
  ended=$(tr -d ' ' <"$folder/stream" | grep -c '"stop":true')
  verdict "SIGTERM lets a stream end" "of $(grep -c '^data:' "$folder/stream") events $before were there; exit status $(code drained)" \
    [ "$ended $(code drained)" = "1 0" ]
else
  row "RPC between two containers" FAILED "${said:-$(last_line drained)}"
fi
exit "$failed"
