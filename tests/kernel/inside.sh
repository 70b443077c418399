# Runs as process 1 on the host's files: what a booted system has, then the command, then the end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
busybox=/kernel-test/busybox
for place in proc:/proc sysfs:/sys devtmpfs:/dev tmpfs:/run tmpfs:/tmp; do
  $busybox mount -t "${place%%:*}" "${place%%:*}" "${place#*:}"
done
mkdir -p /dev/pts /dev/shm /dev/net
$busybox mount -t devpts devpts /dev/pts
$busybox mount -t tmpfs tmpfs /dev/shm
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
for link in fd: stdin:/0 stdout:/1 stderr:/2; do ln -sfn "/proc/self/fd${link#*:}" "/dev/${link%%:*}"; done
# The kernel loads its modules (wireguard, nf_tables, tun, …) by this program when they are first wanted.
ln -s "$busybox" /kernel-test/modprobe
. /kernel-test/command
rm -rf /lib/modules
ln -s "$MODULES" /lib/modules
echo /kernel-test/modprobe >/proc/sys/kernel/modprobe
/kernel-test/modprobe tun
$busybox hostname kernel-test
$busybox ip link set lo up
$busybox date -s "@$NOW" >/dev/null
cd "$CHECKOUT" && main </dev/null
echo "kernel-test: ended with status $?"
$busybox sync
$busybox poweroff -f
