# Guests: making them, and running commands in them. The guest's half of the channel is guest/init.
# shellcheck shell=bash

guest_limit=60   # seconds that a guest may take to start, or a script in it to end

guest_names() { ls /run/lab/guests 2>/dev/null; }
guest_id() { xl domid "$1"; }
guest_lives() { xl domid "$1" >/dev/null 2>&1; }
guest_channel() { echo "/local/domain/$(guest_id "$1")/data/lab"; }

# guest_create NAME [--fio] [CONFIGURATION LINE]...: a paused PV guest
guest_create() {
  local name=$1 ramdisk=guest.cpio memory=160; shift
  if [ "${1-}" = --fio ]; then ramdisk=guest-fio.cpio memory=384; shift; fi
  mkdir -p /run/lab/guests
  {
    printf '%s\n' "name='$name'" "type='pv'" "kernel='/images/vmlinux'" "ramdisk='/images/$ramdisk'" \
      "memory=$memory" "vcpus=1" "cpus='1'" "extra='console=hvc0 rdinit=/init panic=1 loglevel=5'" \
      "on_poweroff='destroy'" "on_reboot='destroy'" "on_crash='destroy'" "$@"
  } >"/run/lab/guests/$name"
  xl create -q -p "/run/lab/guests/$name"
}

# guest_start NAME: lets it run and waits until it takes commands
guest_start() {
  xl unpause "$1"
  guest_await_ready "$1"
}

guest_await_ready() { await $guest_limit guest_is_ready "$1"; }
guest_is_ready() { xenstore-exists "$(guest_channel "$1")/reply"; }

guest_destroy() {
  local id
  if id=$(guest_id "$1" 2>/dev/null); then
    xl destroy "$1"
    backend_forget "$id"
  fi
  rm -f "/run/lab/guests/$1"
}

# guest_send NAME SCRIPT: starts the script in the guest, does not wait; prints the number of the request
guest_send() {
  local channel text number i=0 pairs=()
  channel=$(guest_channel "$1")
  number=$(($(xenstore-read "$channel/request" 2>/dev/null | cut -d' ' -f1) + 1))
  text=$(printf '%s\n' "$2" | base64 | tr -d '\n')
  while [ -n "$text" ]; do
    pairs+=("$channel/script/$i" "${text:0:1020}")
    text=${text:1020}
    i=$((i + 1))
  done
  xenstore-write "${pairs[@]}"
  xenstore-write "$channel/request" "$number $i"
  echo $number
}

# guest_run NAME [--limit SECONDS] SCRIPT: runs it in the guest, prints what it printed, returns its status
guest_run() {
  local name=$1 limit=$guest_limit; shift
  if [ "$1" = --limit ]; then limit=$2; shift 2; fi
  echo "$name: $1" >>"$logs/commands.log"
  local number reply
  number=$(guest_send "$name" "$1") || return 1
  await_reply "$name" "$number" "$limit" || return 1
  reply=$(xenstore-read "$(guest_channel "$name")/reply")
  guest_output "$name" "${reply##* }" | tee -a "$logs/commands.log"
  reply=${reply#* }
  return "${reply%% *}"
}

# await_reply NAME NUMBER SECONDS: woken by xenstore for the reply, and for the end of any domain
await_reply() {
  local channel watch status=1
  channel=$(guest_channel "$1")
  exec {watch}< <(exec timeout "$3" xenstore-watch "$channel/reply" @releaseDomain)
  while read -r -u "$watch" _; do
    case $(xenstore-read "$channel/reply" 2>/dev/null) in "$2 "*) status=0; break ;; esac
    guest_lives "$1" || { echo "guest $1 died while it ran a script"; break; }
  done
  [ $status = 0 ] || echo "no reply from guest $1 within $3 s"
  kill "$!" 2>/dev/null
  exec {watch}<&-
  return $status
}

guest_output() {
  local channel i=0 paths=()
  channel=$(guest_channel "$1")
  while [ "$i" -lt "$2" ]; do
    paths+=("$channel/output/$i")
    i=$((i + 1))
  done
  [ "$2" = 0 ] || xenstore-read "${paths[@]}" | tr -d '\n' | base64 -d
}
