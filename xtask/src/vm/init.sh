#!/bin/busybox sh
# The first process of the guest: makes the machine usable, runs the tests of /suite one by one, and switches it off. What it says on the
# second serial line are lines that begin with `@`, and a failed test's output, indented.

export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/busybox HOME=/root
/bin/busybox --install -s /busybox
ln -s /bin/busybox /bin/sh
# The kernel asks for it by this name, when a module is wanted.
ln -s /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
for folder in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $folder; done
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
ip link set lo up
# Nothing asks for this one by its name before it is used.
modprobe tun

# arm64's serial lines have a name of their own; nodes of the other name are there as well, and lead nowhere.
said=/dev/ttyS1
[ ! -c /dev/ttyAMA1 ] || said=/dev/ttyAMA1
exec </dev/null >$said 2>&1
. /environment
echo "@booted $(uname -r) $(cut -d' ' -f1 /proc/uptime)"
while read -r binary test; do
    echo "@begin $binary::$test"
    timeout -s KILL "$TEST_BOUND" "/tests/$binary" --exact "$test" --test-threads=1 </dev/null >/tmp/output 2>&1
    status=$?
    # The line is slow; a storm's whole account would take it minutes.
    [ $status = 0 ] || cut -c1-4000 /tmp/output | sed -e 's/^/    /' -e '300q'
    echo "@end $status"
done </suite
for file in /renewed/*; do
    [ -f "$file" ] || continue
    echo "@golden ${file##*/}"
    sed -e 's/^/|/' "$file"
done
echo "@done"
poweroff -f
