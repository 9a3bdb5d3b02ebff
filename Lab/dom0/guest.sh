# Guests: making them, and running commands in them. The guest's half of the channel is guest/init.
# shellcheck shell=bash

guest_limit=$((limit > 1800 ? 900 : limit / 2))   # seconds that a guest may take to start, or a script in it to end
piece=1600                   # characters of base64 in one node

guest_names() { ls /run/lab/guests 2>/dev/null; }

# guest_id NAME: its domain number, looked up once (xl takes a tenth of a second)
guest_id() { cat "/run/lab/ids/$1"; }
guest_lookup() { mkdir -p /run/lab/ids && xl domid "$1" >"/run/lab/ids/$1" 2>/dev/null; }
guest_lives() { xenstore-exists "/local/domain/$(guest_id "$1")/name"; }

# guest_create NAME [--fio | --net] [--kernel WORDS] [CONFIGURATION LINE]...: a paused PV guest
guest_create() {
  guest_describe "$@"
  xl create -q -p "/run/lab/guests/$1"
  guest_lookup "$1"
}

# guest_describe: the same, but only xl's configuration file for it. WORDS go onto the kernel's command line,
# root=/dev/xvda starts the guest from that disk, MODULE.PARAMETER=VALUE is passed to a module;
# --boot-loader LINE instead: the line of configuration for what finds the kernel on the guest's disk
guest_describe() {
  local name=$1 ramdisk=guest.cpio memory=160 words='' kernel=(); shift
  case ${1-} in
    --fio) ramdisk=guest-fio.cpio memory=384; shift ;;
    --net) ramdisk=guest-net.cpio memory=256; shift ;;
  esac
  if [ "${1-}" = --kernel ]; then words=$2; shift 2; fi
  kernel=("kernel='/images/vmlinux'" "ramdisk='/images/$ramdisk'"
    "extra='console=hvc0 rdinit=/init panic=1 loglevel=5 $words'")
  if [ "${1-}" = --boot-loader ]; then kernel=("$2"); shift 2; fi
  mkdir -p /run/lab/guests
  # keys that come later win
  printf '%s\n' "name='$name'" "type='pv'" "${kernel[@]}" "memory=$memory" "vcpus=1" "cpus='1'" \
    "on_poweroff='destroy'" "on_reboot='destroy'" "on_crash='destroy'" "$@" >"/run/lab/guests/$name"
}

# guest_start NAME: lets it run and waits until it takes commands
guest_start() {
  xl unpause "$1"
  guest_await_ready "$1"
}

# guest_is_idle NAME: its processors have had nothing to do for half a second (in tenths of a second of their time)
guest_is_idle() {
  local before
  before=$(guest_processor_time "$1")
  usleep 500000
  [ "$(guest_processor_time "$1")" = "$before" ]
}
guest_processor_time() { xl list "$1" | awk 'NR == 2 { print $NF }'; }

guest_await_ready() { await $guest_limit xenstore-exists "/local/domain/$(guest_id "$1")/data/lab/reply"; }

# guest_await_restart NAME: until a reboot has made it another domain, which takes commands
guest_await_restart() {
  local old
  old=$(guest_id "$1")
  await $guest_limit guest_has_other_id "$1" "$old"
  guest_await_ready "$1"
}

guest_has_other_id() { domain_gone "$2" && guest_lookup "$1" && [ "$(guest_id "$1")" != "$2" ]; }

# guest_power_off NAME: an orderly end, with what it mounted written back
guest_power_off() {
  local id
  id=$(guest_id "$1")
  guest_send "$1" 'sync; mount -o remount,ro /; poweroff -f'
  await $guest_limit domain_gone "$id"
}
domain_gone() { ! xenstore-exists "/local/domain/$1/name"; }

guest_destroy() {
  xl destroy "$1" 2>/dev/null
  backend_forget "$(guest_id "$1")"
  rm -f "/run/lab/guests/$1" "/run/lab/ids/$1"
}

# guest_send NAME SCRIPT: starts the script in the guest and does not wait for it
guest_send() { send_request "/local/domain/$(guest_id "$1")/data/lab" "${EPOCHREALTIME//[.,]/}" "$2"; }

# send_request CHANNEL NUMBER SCRIPT
send_request() {
  local lines i pairs=()
  mapfile -t lines < <(base64 -w $piece <<<"$3")
  for ((i = 1; i < ${#lines[@]}; i++)); do pairs+=("$1/script/$i" "${lines[i]}"); done
  # one call is one transaction
  xenstore-write "${pairs[@]}" "$1/request" "$2 ${#lines[@]} ${lines[0]}"
}

# guest_run NAME SCRIPT: runs it in the guest, prints what it printed, returns its status
guest_run() {
  local name=$1 channel watch watcher end=$((SECONDS + guest_limit))
  local number=${EPOCHREALTIME//[.,]/} got='' status count text result=1
  echo "$name: $2" >>"$logs/commands.log"
  channel=/local/domain/$(guest_id "$name")/data/lab
  # woken by the reply, and by the end of any domain; both watches report once when they are set
  exec {watch}< <(exec xenstore-watch "$channel/reply" @releaseDomain)
  watcher=$!
  read -r -t "$guest_limit" -u "$watch" _ && read -r -t "$guest_limit" -u "$watch" _
  # a request to a guest that is gone would only leave nodes behind
  if guest_lives "$name"; then send_request "$channel" "$number" "$2"; else end=$SECONDS; fi
  while read -r -t $((end > SECONDS ? end - SECONDS : 1)) -u "$watch" _; do
    read -r got status count text < <(xenstore-read "$channel/reply" 2>/dev/null || true) || true
    [ "$got" != "$number" ] || break
    guest_lives "$name" || { echo "guest $name died while it ran a script"; break; }
  done
  kill "$watcher" 2>/dev/null || true
  exec {watch}<&-
  if [ "$got" = "$number" ]; then
    guest_output "$channel" "$count" "$text" | tee -a "$logs/commands.log"
    result=$status
  else
    echo "no reply from guest $name (limit: $guest_limit s)"
  fi
  return "$result"
}

# guest_output CHANNEL PIECES PIECE-0
guest_output() {
  local i paths=()
  [ -n "$3" ] || return 0
  for ((i = 1; i < $2; i++)); do paths+=("$1/output/$i"); done
  { echo "$3"; [ ${#paths[@]} = 0 ] || xenstore-read "${paths[@]}"; } | base64 -d
}
