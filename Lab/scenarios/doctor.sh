# The doctor finds dom0 fit, and names what is missing, stuck or a rival when something is.
# shellcheck shell=bash
only_for ringback "the doctor's judgement of dom0" || return 0
image=$(new_image disk 16)

# said STATUS WORD...: the doctor ends so and says all that
said() {
  local output status=0 word
  output=$("$ringback" doctor --kind "$backend_kind" "${options[@]}" 2>&1) || status=$?
  echo "$output"
  [ $status = "$1" ] || return 1
  for word in "${@:2}"; do grep -qF -e "$word" <<<"$output" || { echo "no: $word"; return 1; }; done
}

options=()
expect "dom0 is fit to serve guests" said 0 "lies below" "this is domain 0" "event channels can be used" \
  "no daemon answers" "vbd alone" "guests can be served"
guest_create g
attach_by_nodes g xvda params "$image"
expect "a disk that nobody takes is named" said 0 "(xvda of domain $(guest_id g)): in state Initialising" "ringback serve"
backend_start
backend_reaches g xvda 2
expect "with a daemon all is well" said 0 "1 disk in xenstore, of which none is stuck" "the daemon answers"
xenstore-write "/local/domain/0/backend/$backend_kind/$(guest_id g)/$(vdev_number xvda)/state" 1
xenstore-write "/local/domain/0/error/backend/$backend_kind/$(guest_id g)/$(vdev_number xvda)/error" "for the doctor"
expect "an error of a disk is told" said 0 "for the doctor"
# dom0 has xen-blkback loaded
options=(--kind vbd)
expect "the kernel's backend is a rival for its own kind" said 1 "rmmod xen-blkback"
options=()
mv /dev/xen/gntdev /dev/xen/gntdev.away
expect "a missing device is a problem" said 1 "/dev/xen/gntdev" "xen-gntdev"
mv /dev/xen/gntdev.away /dev/xen/gntdev
guest_destroy g
backend_stop
