# limit: 900
# What goes wrong with xl, block-tap and tap-ctl is told in xl's own output, and leaves nothing behind.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "What goes wrong"
new_image disk.img 16
cp /images/root.ext4 /srv/root.img
daemon start
xl_guest alpha --kernel root=/dev/xvda "$(tap_disk raw xvda root.img)"

# refused DISK PATTERN: xl does not create a guest with it, says why, and nothing stays
refused() {
  xl_guest bad "$1"
  admin "grep ^disk /etc/xen/bad.cfg"
  expect "xl refuses it" fails "xl create /etc/xen/bad.cfg"
  expect "and says why" said "$2"
  rm -f /run/lab/guests/bad
  expect "nothing is left" nothing_left
}
logged() { tail -n 40 /run/lab/daemon.log | grep -E "$1"; }
script_logged() { tail -n 20 /var/log/xen/xen-hotplug.log | grep -E "$1"; }

note "The image is not there:"
refused "$(tap_disk raw xvda missing.img)" 'Could not open "aio:/srv/missing.img"|missing.img.*(No such file|not there)'
admin "tail -n 3 /var/log/xen/xen-hotplug.log"
expect "the script's log says more" script_logged 'missing.img'
expect "and the daemon's" logged 'missing.img'
note "A raw image is called a VHD:"
refused "$(tap_disk vhd xvda disk.img)" 'Could not open "vhd:/srv/disk.img"|disk.img'
admin "tail -n 3 /var/log/xen/xen-hotplug.log"
expect "the daemon's log says why" logged 'vpc|VHD|vhd'
note "A directory:"
mkdir /srv/folder
refused "$(tap_disk raw xvda folder)" 'folder'
note "A format that libxl's tap does not know:"
refused "$(tap_disk qcow2 xvda disk.img)" 'no suitable backend'

note "The hotplug script is not there:"
mv /etc/xen/scripts/block-tap /etc/xen/scripts/block-tap.away
refused "$(tap_disk raw xvda disk.img)" 'block-tap'
mv /etc/xen/scripts/block-tap.away /etc/xen/scripts/block-tap
note "tap-ctl is not there:"
rm /usr/bin/tap-ctl
refused "$(tap_disk raw xvda disk.img)" 'tap-ctl'
ln -s ringback /usr/bin/tap-ctl

note "tap-ctl is called wrongly:"
wrong() {
  expect "refused: $1" fails "$1"
  expect "and told why" said .
  expect_equal "no tap is left" "$(tap-ctl list)" ""
}
wrong "tap-ctl frobnicate"
wrong "tap-ctl open -p 1"
wrong "tap-ctl open -p 1 -m 0 -a aio:/srv/disk.img"
wrong "tap-ctl attach -p 1 -m 7"
wrong "tap-ctl free -m 7"
wrong "tap-ctl create -a floppy:/srv/disk.img"
wrong "tap-ctl create -a aio:disk.img"
wrong "tap-ctl create -a vhd:/srv/disk.img"
wrong "tap-ctl destroy -p 1 -m 0"
wrong "tap-ctl open -m nought"

note "The daemon does not run: xl waits ten seconds for a backend."
require "the daemon stops" daemon stop
xl_guest bad "$(tap_disk raw xvda disk.img)"
expect "xl gives up" fails "xl create /etc/xen/bad.cfg"
expect "and says for what it waited" said 'backend/vbd3|unable to add'
rm -f /run/lab/guests/bad
expect "tap-ctl says that nobody answers" fails "tap-ctl list"
expect "and how to mend it" said 'ringback serve'
note "With a daemon again nothing of that is left:"
daemon start
expect "nothing is left" nothing_left
require "and the guest is created" xl_create alpha
require "it starts" guest_await_ready alpha

note "The daemon is killed, and the guest destroyed while there is none; another daemon and the next guest are not troubled."
daemon kill
admin "xl destroy alpha"
daemon start
expect "nothing is left" nothing_left
require "the guest is created again" xl_create alpha
require "it starts" guest_await_ready alpha
note "The daemon is killed and started again under a guest, which is then shut down:"
daemon kill
daemon start
require "the guest goes on" in_guest alpha 'dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct 2>&1 | tail -n 1'
expect "tap-ctl still knows the tap" admin "tap-ctl list"
require "xl shuts it down" admin "xl shutdown -w alpha"
expect "nothing is left" nothing_left
