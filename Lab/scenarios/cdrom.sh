# A drive whose media come and go: empty at first, one inserted, ejected by the guest, another one inserted.
# shellcheck shell=bash
only_for ringback "a drive without a medium" || return 0
head -c 8388608 /dev/urandom >"$images/first"
head -c 4194304 /dev/urandom >"$images/second"
sums=$(cat "$images/first" "$images/second" | sha256sum)
backend_start
guest_create g
attach_by_nodes g xvda device-type cdrom removable 1 mode r params ""
guest_start g
require "the drive is there without a medium" backend_reaches g xvda 4
expect "for the guest too" guest_run g 'await 60 test -b /dev/xvda && [ "$(cat /sys/block/xvda/size)" = 0 ]'
expect_equal "as a removable disk that is read-only" "$(guest_run g 'cat /sys/block/xvda/removable /sys/block/xvda/ro' | tr '\n' ' ')" "1 1 "

set_medium() { set_nodes g xvda params "$1"; }
has_sectors() { guest_run g "await 60 eval '[ \$(cat /sys/block/xvda/size) = $1 ]'"; }
read_medium='dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum'
set_medium "raw:$images/first"
require "a medium is inserted" has_sectors 16384
expect_equal "and read" "$(guest_run g "$read_medium")" "$(sha256sum <"$images/first")"
expect "but not written" guest_run g '! dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct'
require "the guest ejects it" guest_run g 'xenstore-write device/vbd/51712/eject eject'
require "the drive is empty" has_sectors 0
expect "nothing can be read" guest_run g '[ "$(dd if=/dev/xvda bs=4k count=1 iflag=direct | wc -c)" = 0 ]'
expect_equal "the toolstack can see it" "$(backend_node g xvda params)" ""
set_medium "raw:$images/second"
require "another one is inserted" has_sectors 8192
expect_equal "and read" "$(guest_run g "$read_medium")" "$(sha256sum <"$images/second")"
set_medium "raw:$images/first"
require "media are changed without an eject" has_sectors 16384
expect_equal "and the new one is read" "$(guest_run g "$read_medium")" "$(sha256sum <"$images/first")"
set_medium "raw:$images/missing"
expect "a medium that is not there is told" await 30 error_told g xvda missing
expect_equal "and the old one stays" "$(guest_run g "$read_medium")" "$(sha256sum <"$images/first")"
expect_equal "the images are unchanged" "$(cat "$images/first" "$images/second" | sha256sum)" "$sums"
