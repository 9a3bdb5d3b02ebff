# limit: 700
# Two guests on one bridge: they reach each other, at full speed in both directions, while one of them writes to its disk.
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
xl_begin "Two guests on a bridge"
bridge_begin
new_image disk.img 64 >/dev/null
interfaces_start
xl_guest a --net "vif=['$(vif_on_bridge 2)']" "$(tap_disk raw xvda disk.img)"
xl_guest b --net "vif=['$(vif_on_bridge 3)']"
for guest in a b; do require "xl creates guest $guest" xl_create $guest; done
n=2
for guest in a b; do
  require "guest $guest starts" guest_await_ready $guest
  require "its interface comes up" net_up $guest $((n++))
  require "and is connected" vif_connected $guest
done
expect "a reaches b" guest_run a "$(pings 10.0.0.3)"
expect "b reaches a over IPv6, in pieces" guest_run b "$(pings fd00::2 8000)"
require "b waits for connections" guest_run b 'iperf3 --server --daemon'
expect "a sends TCP to b" iperf a-to-b a 10.0.0.3 4
expect "b sends TCP to a" iperf b-to-a a 10.0.0.3 4 --reverse
fact "from guest to guest, Mbit/s: $(megabits a-to-b) and $(megabits b-to-a)"

require "a sees its disk" guest_run a 'disk_ready xvda && mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt'
expect "a writes, sends to b and takes from it at the same time" guest_run a '
  iperf3 --client 10.0.0.3 --time 8 --bidir >/tmp/iperf & iperf=$!
  head -c 16777216 /dev/urandom >/tmp/data
  for round in 1 2 3; do
    dd if=/tmp/data of=/mnt/data bs=64k conv=fsync 2>/dev/null
    echo 1 >/proc/sys/vm/drop_caches
    cmp /tmp/data /mnt/data || exit
  done
  wait $iperf || { cat /tmp/iperf; false; }'
expect_equal "no error of the disk" "$(counter a xvda errors)" 0
no_checksum_errors a b
expect "a unmounts" guest_run a 'umount /mnt'
expect "both are shut down" admin "xl shutdown -a -w"
expect "nothing is left" nothing_left
expect "the file system is clean" e2fsck -fn /srv/disk.img
