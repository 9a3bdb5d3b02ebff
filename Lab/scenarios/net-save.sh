# limit: 700
# A guest on a bridge gets its address by DHCP, is saved to a file and restored, and has its network again.
# shellcheck shell=bash
xl_begin "Addresses by DHCP; save and restore"
bridge_begin
require "dnsmasq gives addresses on the bridge" addresses_begin 00:16:3e:00:00:02 10.0.0.77
interfaces_start
xl_guest g --net "vif=['$(vif_on_bridge 2)']"
require "xl creates a guest with an interface" xl_create g
require "it starts" guest_await_ready g
require "it asks for an address" guest_run g '
  await 60 test -e /sys/class/net/eth0 && ip link set lo up && ip link set eth0 up || exit
  printf "%s\n" "#!/usr/bin/bash" "[ \$1 != bound ] || ip address add \$ip/\$mask dev \$interface" >/tmp/lease
  chmod +x /tmp/lease
  udhcpc -i eth0 -n -q -t 10 -s /tmp/lease'
expect "it has the one that is meant for it" guest_run g 'ip -4 address show dev eth0 | grep "inet 10.0.0.77/24"'
expect "dom0 reaches it there" dom0_pings 10.0.0.77
for time in first second; do
  old=$(guest_id g)
  require "xl save, the $time time" admin "xl save g /srv/g.save"
  expect "nothing of it is left" nothing_left
  expect_equal "no page is mapped" "$(grants_mapped_of "$old")" 0
  require "xl restore" admin "xl restore /srv/g.save"
  require "it is another domain" guest_has_other_id g "$old"
  rm /srv/g.save
  require "its interface is connected" vif_connected g
  require "and in the bridge" in_bridge "$(vif_of g)"
  expect "dom0 reaches it, by the address that it had" dom0_pings 10.0.0.77
  expect "and it reaches dom0, in pieces" guest_run g "$(pings 10.0.0.1 8000)"
done
expect "TCP goes both ways" iperf after g 10.0.0.1 2 --bidir
no_checksum_errors g
expect "the guest switches itself off" guest_power_off g
expect "nothing is left" nothing_left
sed -i "/xc: progress/d" "$logs/transcript.md"
