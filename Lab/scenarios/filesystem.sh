# A guest makes a file system, copies a tree into it, mounts it again: dom0 finds exactly that tree in the image.
# shellcheck shell=bash
image=$(new_image disk 96)
backend_start
guest_create g
attach g xvda "$image"
guest_start g

# checksums and link targets of everything under the current folder; the same words run in the guest and in dom0
list_tree='find . -name lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
  find . -type l -print0 | sort -z | xargs -0 -n 1 readlink'

require "the guest sees the disk" guest_run g 'disk_ready xvda && [ "$(cat /sys/block/xvda/size)" = 196608 ]'
require "mkfs.ext4" guest_run g 'mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt'
require "copy a tree" guest_run g '
  set -e
  cp -a /modules /mnt/
  mkdir -p /mnt/made/empty "/mnt/made/a name with blanks"
  for ((i = 0; i < 40; i++)); do head -c $((i * i * 97)) /dev/urandom >/mnt/made/file-$i; done
  ln -s ../file-7 "/mnt/made/a name with blanks/link"
  dd if=/dev/urandom of=/mnt/made/sparse bs=4k count=3 seek=5000 2>/dev/null
  sync'
guest_run g "cd /mnt && $list_tree" >"$logs/tree-written"
require "unmount and mount again" guest_run g '
  umount /mnt && blockdev --flushbufs /dev/xvda && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /dev/xvda /mnt'
guest_run g "cd /mnt && $list_tree" >"$logs/tree-read"
expect "checksums equal after remount ($(wc -l <"$logs/tree-written") files)" cmp "$logs/tree-written" "$logs/tree-read"
require "unmount" guest_run g 'umount /mnt'
detach g xvda

require "e2fsck finds the image clean" e2fsck -fn "$image"
mount -t ext4 -o loop,ro "$image" /mnt
(cd /mnt && eval "$list_tree") >"$logs/tree-in-image"
umount /mnt
expect "the image holds exactly that tree" cmp "$logs/tree-written" "$logs/tree-in-image"
