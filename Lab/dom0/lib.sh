# The verbs of the scenarios: checks, disks, and (sourced below) guests and backends.
# shellcheck shell=bash
# $scenario names the running scenario, $logs and $images are its folders, $backend is ringback or blkback, and
# $short is not empty when a quick run is asked for.
# shellcheck source=dom0/results.sh
. "$lab/dom0/results.sh"
# shellcheck source=dom0/guest.sh
. "$lab/dom0/guest.sh"
# shellcheck source=dom0/ringback.sh
. "$lab/dom0/$backend.sh"
# shellcheck source=dom0/xl.sh
. "$lab/dom0/xl.sh"
# shellcheck source=dom0/net.sh
. "$lab/dom0/net.sh"

# expect TEXT COMMAND...: one check; the scenario goes on when it fails
expect() {
  local text=$1; shift
  echo "--- $text"
  if "$@"; then report ok "$text"; else failed "$text"; fi
}

# require TEXT COMMAND...: one check that the rest of the scenario depends on
require() {
  local text=$1; shift
  echo "--- $text"
  if "$@"; then report ok "$text"; else give_up "$text"; fi
}

# expect_equal TEXT GOT WANTED
expect_equal() {
  echo "--- $1"
  if [ "$2" = "$3" ]; then report ok "$1"; else failed "$1 (got ${2:-nothing}, wanted ${3:-nothing})"; fi
}

failed() {
  report FAIL "$1"
  : >/run/lab/failed
}

# give_up TEXT: the scenario cannot go on
give_up() {
  trap - ERR
  failed "$1, gave up"
  exit 97
}

skip() { report skip "$1"; }

# only_for BACKEND TEXT: false, with a line that says so, when another backend serves the disks
only_for() {
  [ "$backend" = "$1" ] && return
  skip "$2 (only for $1)"
  return 1
}

# await SECONDS COMMAND...: until the command succeeds, looking ten times a second at first, and after five seconds once: what
# is waited for needs the processor too
await() {
  local begin end
  begin=$(uptime_hundredths) end=$((begin + $1 * 100)); shift
  until "$@"; do
    [ "$(uptime_hundredths)" -lt "$end" ] || { echo "gave up waiting: $*"; return 1; }
    if [ "$(uptime_hundredths)" -lt $((begin + 500)) ]; then usleep 100000; else sleep 1; fi
  done
}

# new_image NAME MEGABYTES: an empty disk image; prints its path
new_image() {
  truncate -s "$2M" "$images/$1"
  echo "$images/$1"
}

sum_of() { sha256sum "$1" | cut -d' ' -f1; }

vdev_number() {
  local letter
  letter=$(printf '%d' "'${1#xvd}")
  echo $((51712 + 16 * (letter - 97)))
}

# attach GUEST VDEV IMAGE [--mode r] [OPTION of `ringback attach`]...: returns when the backend is ready for the frontend
attach() {
  echo "attach $*"
  backend_attach "$(guest_id "$1")" "${@:2}"
}

# attach_by_nodes GUEST VDEV [NODE VALUE]...: as a toolstack would, without one; does not wait for the backend
attach_by_nodes() {
  echo "attach by nodes $*"
  # by this mark the daemon takes the nodes away after the guest's end
  write_device_nodes "$(guest_id "$1")" "$2" hotplug-status connected toolstack ringback "${@:3}"
}

# write_device_nodes DOMAIN VDEV [NODE VALUE]...: what a toolstack writes, and in the backend's folder the given nodes
write_device_nodes() {
  local number frontend back type=disk pairs=() i
  number=$(vdev_number "$2")
  frontend=/local/domain/$1/device/vbd/$number
  back=/local/domain/0/backend/$backend_kind/$1/$number
  for ((i = 3; i < $#; i += 2)); do
    [ "${!i}" != device-type ] || type=${*:i+1:1}
    pairs+=("$back/${!i}" "${*:i+1:1}")
  done
  # new nodes take their parent's permissions
  xenstore-write "$frontend" "" "$back" ""
  xenstore-chmod "$frontend" "n$1" r0
  xenstore-chmod "$back" n0 "r$1"
  xenstore-write "$frontend/backend" "$back" "$frontend/backend-id" 0 "$frontend/virtual-device" "$number" \
    "$frontend/device-type" "$type" "$frontend/state" 1 \
    "$back/frontend" "$frontend" "$back/frontend-id" "$1" "$back/online" 1 "$back/mode" w "$back/device-type" disk \
    "$back/dev" "$2" "$back/removable" 0 "$back/bootable" 1 "$back/type" $backend_kind "${pairs[@]}" "$back/state" 1
}

# state_among PATH STATE...
state_among() {
  local state wanted
  state=$(xenstore-read "$1" 2>/dev/null) || return
  for wanted in "${@:2}"; do [ "$state" != "$wanted" ] || return 0; done
  return 1
}

# backend_reaches GUEST VDEV STATE...
backend_reaches() {
  await 60 state_among "/local/domain/0/backend/$backend_kind/$(guest_id "$1")/$(vdev_number "$2")/state" "${@:3}"
}

# detach GUEST VDEV: returns when the device is gone
detach() {
  echo "detach $1 $2"
  backend_detach "$(guest_id "$1")" "$2"
}

# counter GUEST VDEV reads|writes|flushes|errors|...: what the backend counted so far
counter() { backend_counter "$(guest_id "$1")" "$2" "$3"; }

# counter_reaches GUEST VDEV NAME NUMBER
counter_reaches() { [ "$(counter "$1" "$2" "$3")" -ge "$4" ]; }

# writer_start GUEST VDEV OPTION of fio...: the guest writes at random places, reads back and compares, until writer_stop
writer_start() {
  local guest=$1 vdev=$2 before; shift 2
  before=$(counter "$guest" "$vdev" writes)
  guest_run "$guest" "
    until xenstore-exists data/enough; do
      fio --name=writer --filename=/dev/$vdev --direct=1 --ioengine=libaio --randrepeat=0 --rw=randwrite --size=100% \
        --verify=crc32c --verify_fatal=1 --verify_backlog=64 $* || exit 1
    done" &
  writer=$!
  await 60 counter_reaches "$guest" "$vdev" writes $((before + 50))
}

# writer_stop GUEST: its status tells whether all that was written came back
writer_stop() {
  local enough status=0
  enough=/local/domain/$(guest_id "$1")/data/enough
  xenstore-write "$enough" 1
  wait "$writer" || status=$?
  xenstore-rm "$enough"
  return $status
}

# frontend_node GUEST VDEV NODE and backend_node GUEST VDEV NODE: a value from xenstore, empty when it is not there
frontend_node() { xenstore-read "/local/domain/$(guest_id "$1")/device/vbd/$(vdev_number "$2")/$3" 2>/dev/null || true; }
backend_node() {
  xenstore-read "/local/domain/0/backend/$backend_kind/$(guest_id "$1")/$(vdev_number "$2")/$3" 2>/dev/null || true
}

# set_nodes GUEST VDEV [NODE VALUE]...: in the backend's folder
set_nodes() {
  local folder pairs=() i
  folder=/local/domain/0/backend/$backend_kind/$(guest_id "$1")/$(vdev_number "$2")
  for ((i = 3; i < $#; i += 2)); do pairs+=("$folder/${!i}" "${*:i+1:1}"); done
  echo "set ${pairs[*]}"
  xenstore-write "${pairs[@]}"
}

# backend_devices: domains that have nodes of the backend in xenstore
backend_devices() { xenstore-list "/local/domain/0/backend/$backend_kind" 2>/dev/null; }
no_device_of() { ! backend_devices | grep -qx "$1"; }
no_device_left() { [ -z "$(backend_devices)" ]; }

# domains_left: all but dom0; one that is dead while somebody still maps its pages is listed as (null)
domains_left() { xl list | awk 'NR > 1 && $1 != "Domain-0" { print $1 "(" $2 ")" }'; }
no_domain_left() { [ -z "$(domains_left)" ]; }

# grants_mapped GUEST: how many of the guest's pages other domains hold mapped, by the hypervisor's own table.
# The first eight entries belong to the toolstack (console and xenstore).
grants_mapped() { grants_mapped_of "$(guest_id "$1")"; }
grants_mapped_of() {
  xl dmesg -c >/dev/null
  xl debug-keys g
  xl dmesg >"$logs/grants.txt"
  awk -v domain="$1" '
    /grant-table for remote d/ { inside = ($0 ~ "remote d" domain "[^0-9]") }
    inside && match($0, /\[0x[0-9a-f]+\]/) { if (substr($0, RSTART + 1, RLENGTH - 2) !~ /^0x0*[0-7]$/) count++ }
    END { print count + 0 }' "$logs/grants.txt"
}
