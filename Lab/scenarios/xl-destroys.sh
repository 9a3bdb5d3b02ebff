# limit: 1200
# `xl destroy` in the middle of writing, again and again: no page, descriptor, tap or node is left.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "xl destroy under load"
rounds=${rounds:-20}
new_image raw.img 32
qemu-img create -q -f vpc -o force_size=on /srv/disk.vhd 32M
backend_start
xl_guest g "$(tap_disk raw xvda raw.img)" "$(tap_disk vhd xvdb disk.vhd)"
load='for disk in xvda xvdb; do disk_ready $disk; while :; do dd if=/dev/urandom of=/dev/$disk bs=64k count=64 oflag=direct; done & done'
destroy_once() {
  xl create -q /etc/xen/g.cfg || return
  guest_lookup g && guest_await_ready g || return
  guest_send g "$load"
  await 60 counter_reaches g xvda writes 50 && await 60 counter_reaches g xvdb writes 50 || return
  xl destroy g || return
  nothing_left
}
settled_by=$((rounds < 10 ? 2 : 5)) settled=''
for ((round = 1; round <= rounds; round++)); do
  require "destroy $round leaves nothing" destroy_once
  case $round in 1 | 5 | *0 | "$rounds") fact "after $round: $(daemon_figures)" ;; esac
  [ $round != $settled_by ] || settled=$(daemon_figures_fixed)
done
expect_equal "as many descriptors, taps and nodes as after $settled_by" "$(daemon_figures_fixed)" "$settled"
expect_equal "no page of any guest is mapped" "$(grants_mapped_all)" 0
