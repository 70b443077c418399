#!/bin/busybox sh
# First program of the virtual machine, in its initial RAM disk: the host's files, read only, under a layer in
# memory that takes what is written. Then the work begins in there.
/bin/busybox --install -s /bin
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module" || echo "init: no $module"; done </modules/order
mkdir -p /host /layer /root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose,posixacl host /host
mount -t tmpfs -o size=80% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root || exec poweroff -f
# What the work needs of this disk, in a folder that the host does not have.
mkdir -p /root/kernel-test
cp /bin/busybox /inside.sh /command /root/kernel-test/
exec switch_root /root /kernel-test/busybox sh /kernel-test/inside.sh
