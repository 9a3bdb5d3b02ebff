# A disk is paused under load, its image put elsewhere, and resumed from there: the guest sees only latency.
# shellcheck shell=bash
only_for ringback "pause and resume" || return 0
image=$(new_image disk 64)
backend_start
guest_create g --fio
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
require "it writes" writer_start g xvda --iodepth=16 --bs=16k --io_size=8m --fdatasync=100
expect "the daemon holds the image" daemon_holds "$image"

require "pause" ask pause g xvda
before=$(sum_of "$image")
writes=$(counter g xvda writes)
expect "the daemon has let go of the image" eval '! daemon_holds "$image"'
expect "the guest comes to a halt" await 60 guest_is_idle g
expect_equal "nothing is written while paused" "$(counter g xvda writes)" "$writes"
expect_equal "and the image stays as it is" "$(sum_of "$image")" "$before"
require "resume" ask resume g xvda
expect "the guest goes on" await 60 counter_reaches g xvda writes $((writes + 50))

require "pause again" ask pause g xvda
mv "$image" "$images/moved"
truncate -s 32M "$images/small"
expect "an image of another size is refused" eval '! ask resume g xvda --image "$images/small"'
writes=$(counter g xvda writes)
require "resume from another image" ask resume g xvda --image "$images/moved"
expect "the guest goes on" await 60 counter_reaches g xvda writes $((writes + 50))

require "pause a third time" ask pause g xvda
require "the daemon stops" backend_stop
backend_start
expect "the next daemon leaves the disk paused" await 60 eval '[ "$(backend_node g xvda paused)" = 1 ]'
require "resume" ask resume g xvda
expect "the guest goes on" await 60 counter_reaches g xvda writes 50

expect "all that the guest wrote came back" writer_stop g
expect_equal "no request failed" "$(counter g xvda errors)" 0
written=$(guest_run g 'dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum')
detach g xvda
expect_equal "the image holds what the guest read last" "$(sha256sum <"$images/moved")" "$written"
