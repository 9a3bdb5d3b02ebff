# Disks served by Linux's own xen-blkback over a loop device: the peer that ringback is compared with.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by lib.sh
backend_kind=vbd

backend_start() { :; }
backend_stop() { :; }
backend_last_words() { :; }

interfaces_start() { netback_load; }
interfaces_stop() { netback_unload; }

# backend_attach DOMAIN VDEV IMAGE [--mode r]
backend_attach() {
  local number loop mode=w back
  number=$(vdev_number "$2")
  [ "${4-}" != --mode ] || mode=$5
  loop=$(losetup -f)
  if [ "$mode" = r ]; then losetup -r "$loop" "$3"; else losetup "$loop" "$3"; fi
  echo "$loop" >"/run/lab/loop-$1-$number"
  back=/local/domain/0/backend/vbd/$1/$number
  write_device_nodes "$1" "$2" mode "$mode"
  xenstore-write "$back/physical-device" "$(stat -c '%t:%T' "$loop")" "$back/hotplug-status" connected
  await 30 state_among "$back/state" 2 4
}

backend_detach() {
  local number back
  number=$(vdev_number "$2")
  back=/local/domain/0/backend/vbd/$1/$number
  xenstore-write "$back/online" 0 "$back/state" 5
  await 30 state_among "$back/state" 6
  xenstore-rm "$back" "/local/domain/$1/device/vbd/$number"
  release_loop "$1" "$number"
}

release_loop() {
  losetup -d "$(cat "/run/lab/loop-$1-$2")"
  rm "/run/lab/loop-$1-$2"
}

# backend_forget DOMAIN: after its end the kernel lets go of its devices by itself; nodes and loop devices are ours
backend_forget() {
  local file number
  for file in /run/lab/loop-"$1"-*; do
    [ -e "$file" ] || continue
    number=${file##*-}
    await 30 test ! -e "/sys/bus/xen-backend/devices/vbd-$1-$number"
    release_loop "$1" "$number"
  done
  xenstore-rm "/local/domain/0/backend/vbd/$1" 2>/dev/null || true
  [ -n "$(xenstore-list /local/domain/0/backend/vbd 2>/dev/null)" ] || xenstore-rm /local/domain/0/backend/vbd 2>/dev/null || true
}

# backend_counter DOMAIN VDEV NAME
backend_counter() {
  local file
  case $3 in
    reads) file=rd_req ;;
    writes) file=wr_req ;;
    flushes) file=f_req ;;
    discards) file=ds_req ;;
    *) echo "blkback does not count $3"; return 1 ;;
  esac
  cat "/sys/bus/xen-backend/devices/vbd-$1-$(vdev_number "$2")/statistics/$file"
}

# backend_list: one line for each device the kernel serves
backend_list() { find /sys/bus/xen-backend/devices -name 'vbd-*' -exec basename {} \;; }
