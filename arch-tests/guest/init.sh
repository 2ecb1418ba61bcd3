#!/bin/sh
# First program of an emulated machine: devices, disk, network, and the agent as a service that is started again whenever it ends.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for word in $(cat /proc/cmdline); do
    case $word in vigo.*) eval "$(echo "${word#vigo.}" | tr , ' ')" ;; esac
done
if [ -n "$sleeping" ]; then
    echo "VIGO sleeping $(grep MemAvailable /proc/meminfo)"
    while :; do sleep 1000; done
fi
for module in /modules/*; do insmod "$module" || echo "VIGO no $module"; done
hostname "$name"
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
while [ ! -e /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /disk || { echo "VIGO no disk"; exec sleep 1000; }

boot=$(($(cat /disk/boot 2>/dev/null || echo 0) + 1))
echo "$boot" >/disk/boot
# Somebody was here while the power was off.
[ "$boot" = 1 ] || echo broken >/disk/kept
sync
echo "VIGO boot $boot clock $(date +%Y)"
if [ ! -e /disk/identity/pins ]; then
    vigo-envoy enroll --server "10.0.2.2:$port" --hostname "$name" --token "$token" --trust-hash "$trust" --config /envoy.yaml
    echo "VIGO enrolled $?"
fi
while :; do
    vigo-envoy daemon --config /envoy.yaml >>/disk/log 2>&1 &
    agent=$!
    while kill -0 $agent 2>/dev/null; do
        rss=$(sed -n 's/^VmRSS: *//p; s/^VmHWM: */peak /p' /proc/$agent/status | tr '\n' ' ')
        echo "VIGO state boot=$boot kept=$(cat /disk/kept 2>/dev/null) lines=$(wc -l </disk/ledger 2>/dev/null) rss=$rss"
        sleep 1
    done
    wait $agent
    echo "VIGO the agent ended with $?"
    sleep 1
done
