#!/usr/bin/env bash
# The tests marked `device`, on a device that is not the CPU. Needs bash, and a Python that has llamabox's tests' packages.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: device_check.sh [BACKEND [WORDS...]]

  BACKEND   vulkan, cuda, rocm or metal; vulkan
  WORDS     for pytest, such as -x or -k slot_file

environment:
  LLAMABOX_NATIVE          libraries that are built; without it they are built first, by build_native.py. A build is kept
                           in the user's cache
  PYTHON                   python
  GGML_VK_VISIBLE_DEVICES  devices of Vulkan by their numbers. Where there is no GPU and this is not set, device 0 is
                           taken: Mesa's lavapipe for instance, which ggml passes over because it is a CPU. It wants
                           Mesa 25 (docs/building.md): that of Debian 12 crashes. VK_DRIVER_FILES names another driver

The exit status is pytest's; 1 where the build fails, or no device is found.
TEXT
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
backend=${1:-vulkan}
if [ $# -gt 0 ]; then shift; fi
python=${PYTHON:-python}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${LLAMABOX_NATIVE-}" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  "$python" build_native.py --backend "$backend" --without-images --prefix "$folder/native"
  export LLAMABOX_NATIVE=$folder/native
fi

# devices: those that are no CPU, a line each.
devices() { "$python" -m llamabox --list-devices 2>&1 | grep -E '^  .*\((gpu|igpu), ' || true; }

found=$(devices)
if [ -z "$found" ] && [ "$backend" = vulkan ] && [ -z "${GGML_VK_VISIBLE_DEVICES-}" ]; then
  export GGML_VK_VISIBLE_DEVICES=0
  found=$(devices)
fi
[ -n "$found" ] || { echo "device_check.sh: no device is here but the CPU" >&2 && exit 1; }
echo "$found"
marked=device
if [ "$backend" != vulkan ]; then marked="device and not vulkan"; fi
# A device in software takes minutes to compile a test's kernels, more beside others.
"$python" -m pytest -n 0 -o faulthandler_timeout=1800 -m "$marked" tests/e2e/device "$@"
