# Disks as an installer leaves them: a GPT, a boot partition with kernel and boot loader's configuration, a root partition.
# shellcheck shell=bash

# installed_image NAME MEGABYTES KERNEL [KERNEL WORDS [SECONDS]]: its boot partition has the given size, 32 MB at its end are
# free, and its boot loader waits so long; prints its path
installed_image() {
  local image=$images/$1 tree=/run/lab/boot
  mkdir -p "$tree/grub"
  cp "$3" "$tree/kernel"
  gzip -1 </images/guest.cpio >"$tree/initrd"
  printf '%s\n' "set timeout=${5-0}" "menuentry 'Linux' --unrestricted {" \
    "linux /kernel console=hvc0 rdinit=/init panic=1 loglevel=5 root=/dev/xvda2 ${4-}" "initrd /initrd" "}" >"$tree/grub/grub.cfg"
  truncate -s $(($2 + 98))M "$image"
  printf '%s\n' "label: gpt" "start=1MiB, size=$2MiB, name=boot" "size=64MiB, name=root" | sfdisk -q "$image" >&2
  mke2fs -q -t ext2 -b 4096 -E offset=$((1 << 20)) -d "$tree" "$image" "$2M" >&2
  rm -r "$tree"
  dd if=/images/root.ext4 of="$image" bs=1M seek=$(($2 + 1)) conv=notrunc,sparse status=none
  echo "$image"
}

# partition_table DISK: the command that prints it, without the disk's name
partition_table() { printf '%s' "sfdisk -d $1 | sed 's|^[^ ]*\([0-9]\) : |\1 |; /^device/d'"; }
