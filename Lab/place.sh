# Where the lab keeps things on the host; sourced by fetch, build-images and run.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for the scripts that source this file

lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RINGBACK_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringback-lab}
debs=$cache/apt/archives   # packages, checked against packages.sha256
root=$cache/root           # the packages, unpacked
images=$cache/images       # xen, vmlinux, dom0.cpio, guest.cpio

say() { printf 'lab: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# need PROGRAM=PACKAGE...: fails with the packages to install when a program is missing
need() {
  local pair missing=()
  for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
  [ ${#missing[@]} = 0 ] || die "missing on this machine: apt-get install ${missing[*]}"
}

# Two runs that share a cache must not build it at the same time.
lock_cache() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock -n 9 || { say "waiting for another run that uses $cache"; flock 9; }
}
