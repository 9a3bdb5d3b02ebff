# limit: 2400
# A guest reboots again and again in the middle of writing to its two disks: nothing leaks.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "Reboots"
rounds=${rounds:-50}
new_image raw.img 32
qemu-img create -q -f vpc -o force_size=on /srv/disk.vhd 32M
backend_start
xl_guest g "$(tap_disk raw xvda raw.img)" "$(tap_disk vhd xvdb disk.vhd)" "on_reboot='restart'"
require "xl creates the guest" xl_create g
require "it starts" guest_await_ready g
load='for disk in xvda xvdb; do disk_ready $disk; while :; do dd if=/dev/urandom of=/dev/$disk bs=64k count=64 oflag=direct; done & done'
reboot_once() {
  guest_send g "$load"
  await 60 counter_reaches g xvda writes 20 && await 60 counter_reaches g xvdb writes 20 || return
  xl reboot g || return
  guest_await_restart g && guest_run g 'disk_ready xvda && disk_ready xvdb'
}
settled_by=$((rounds < 10 ? 2 : 5)) settled=''
for ((round = 1; round <= rounds; round++)); do
  require "reboot $round" reboot_once
  case $round in 1 | 5 | *0 | "$rounds") fact "after $round reboots: $(daemon_figures)" ;; esac
  [ $round != $settled_by ] || settled=$(daemon_figures_fixed)
done
expect_equal "as many descriptors, taps and nodes as after $settled_by" "$(daemon_figures_fixed)" "$settled"
xl destroy g
expect "nothing is left" nothing_left
expect_equal "no page of any guest is mapped" "$(grants_mapped_all)" 0
fact "at the end: $(daemon_figures)"
